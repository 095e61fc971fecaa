package gateway

import (
	"context"
	"net/http"
	"sync"
)

// outbound batches a response. grpc writes a message as a prefix and a payload
// and flushes; through the wrapper each of these would become a websocket
// message of its own, with its own write to the socket, while the handler
// waits. Instead Write appends, and Flush wakes one goroutine that sends all
// there is as one. At most outboundLimit bytes wait; beyond them Write waits.
//
// Two rules come from how grpc and the wrapper use the header map. The first
// flush is synchronous: grpc puts the status into the same map later, and a
// late first write would send it as a header. And close is called before the
// wrapper writes the trailers.
type outbound struct {
	// Static.
	ctx  context.Context
	w    http.ResponseWriter // the wrapper's
	fail context.CancelCauseFunc

	// Of the one goroutine that calls Write, Flush and close.
	started bool // the pump runs

	more    chan struct{} // capacity 1: wakes the pump
	room    chan struct{} // capacity 1: the pump took what there was
	closing chan struct{}
	done    chan struct{} // the pump has ended
	once    sync.Once

	mu  sync.Mutex
	buf *[]byte // from buffers, or nil when empty
	err error   // why nothing can be sent any more
}

// buffers holds the outputs' memory, so that an idle stream has none.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, outboundLimit)
	return &b
}}

func newOutbound(ctx context.Context, w http.ResponseWriter, fail context.CancelCauseFunc) *outbound {
	return &outbound{
		ctx:     ctx,
		w:       w,
		fail:    fail,
		more:    make(chan struct{}, 1),
		room:    make(chan struct{}, 1),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
	}
}

// Header implements http.ResponseWriter.
func (o *outbound) Header() http.Header { return o.w.Header() }

// WriteHeader implements http.ResponseWriter. It comes before any Write.
func (o *outbound) WriteHeader(code int) { o.w.WriteHeader(code) }

// Write implements http.ResponseWriter. It keeps nothing of p.
func (o *outbound) Write(p []byte) (int, error) {
	total := len(p)
	for {
		n, err := o.put(p)
		p = p[n:]
		if err != nil || len(p) == 0 {
			return total - len(p), err
		}
		if err := o.makeRoom(); err != nil {
			return total - len(p), err
		}
	}
}

// put appends as much of p as fits.
func (o *outbound) put(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	if o.buf == nil {
		o.buf = buffers.Get().(*[]byte)
	}
	n := min(len(p), outboundLimit-len(*o.buf))
	*o.buf = append(*o.buf, p[:n]...)
	return n, nil
}

func (o *outbound) makeRoom() error {
	if !o.started {
		return o.send()
	}
	o.wake()
	select {
	case <-o.room:
		return nil
	case <-o.done:
		return o.sendError()
	case <-o.ctx.Done():
		return context.Cause(o.ctx)
	}
}

// Flush implements http.Flusher.
func (o *outbound) Flush() {
	if o.started {
		o.wake()
		return
	}
	wrote := o.pending()
	_ = o.send() // kept in o.err
	if wrote {
		o.started = true
		go o.pump()
	}
}

func (o *outbound) wake() {
	select {
	case o.more <- struct{}{}:
	default:
	}
}

// pump sends until close, or until sending fails.
func (o *outbound) pump() {
	defer close(o.done)
	for {
		closing := false
		select {
		case <-o.more:
		case <-o.closing:
			closing = true
		}
		if err := o.send(); err != nil || closing {
			return
		}
	}
}

// send writes and flushes everything that has been put.
func (o *outbound) send() error {
	o.mu.Lock()
	buf, err := o.buf, o.err
	o.buf = nil
	o.mu.Unlock()
	select { // before the slow part: Write may go on beside it
	case o.room <- struct{}{}:
	default:
	}
	if err == nil && buf != nil {
		_, err = o.w.Write(*buf)
	}
	if buf != nil {
		*buf = (*buf)[:0]
		buffers.Put(buf)
	}
	if err != nil {
		o.broken(err)
		return err
	}
	if f, ok := o.w.(http.Flusher); ok {
		f.Flush()
	}
	return nil
}

// broken ends the call: grpc ignores write errors, only its context tells it.
func (o *outbound) broken(err error) {
	o.mu.Lock()
	if o.err == nil {
		o.err = err
	}
	o.mu.Unlock()
	o.fail(err)
}

func (o *outbound) pending() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf != nil
}

func (o *outbound) sendError() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// close sends what is left and waits for it; later calls do nothing. A peer
// that takes nothing bounds it by failing the write.
func (o *outbound) close() {
	o.once.Do(func() {
		if !o.started {
			_ = o.send()
			return
		}
		close(o.closing)
		<-o.done
	})
}
