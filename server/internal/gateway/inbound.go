package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/stats"
)

var (
	errFirstFrame = errors.New("gateway: the websocket's header block did not come in time")
	errClosing    = errors.New("gateway: the handler has returned")
)

// inbound is a request's body on its way to gRPC. grpc.Server.ServeHTTP has no
// flow control: it reads a body as fast as it comes into an unbounded queue,
// each Read pinning readSize bytes however few it returned. So
//
//   - Read returns only when its buffer is full or a message has ended, which
//     makes what is pinned proportional to what was sent, and
//   - Read waits while MaxPendingBytes are pinned, which leaves the rest to
//     TCP. What the handler received is credited by itself, through
//     limit.Flow, or by [credits] if it reads in gRPC's own way. One that says
//     what it wants before it reads it has that read beyond the bound.
type inbound struct {
	// Static.
	call  *call
	body  io.ReadCloser // the wrapper's
	out   *outbound
	bound int // of Reads not consumed
	stall time.Duration
	timer *time.Timer // ends the call unless its request comes
	// streams says that the client streams: then the request has come with
	// its first message, else with its end, which gRPC waits for.
	streams bool

	// Of the one goroutine that reads.
	borders borders

	// Between that goroutine, the handler and whoever closes.
	ended  atomic.Bool   // the body is read to its end
	room   chan struct{} // capacity 1: something was consumed
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex
	reads []int // bytes of each Read not consumed, oldest first
	part  int   // bytes consumed of the oldest
	extra int   // Reads beyond bound that the handler waits for
}

func (g *Gateway) newInbound(c *call, body io.ReadCloser, out *outbound, streams bool) *inbound {
	return &inbound{
		call:    c,
		body:    body,
		out:     out,
		bound:   g.opts.MaxPendingBytes / readSize,
		stall:   g.opts.StallTimeout,
		timer:   time.AfterFunc(g.opts.RequestTimeout, func() { c.cancel(errRequest) }),
		streams: streams,
		borders: borders{max: uint32(g.opts.MaxRecvBytes)},
		room:    make(chan struct{}, 1),
		closed:  make(chan struct{}),
	}
}

// Read is called by one goroutine of ServeHTTP until it fails.
func (b *inbound) Read(p []byte) (int, error) {
	if err := b.waitRoom(); err != nil {
		return 0, err
	}
	n, err := b.fill(p)
	if err != nil || b.streams && b.borders.count > 0 {
		b.timer.Stop()
	}
	if n > 0 {
		b.mu.Lock()
		b.reads = append(b.reads, n)
		b.mu.Unlock()
	}
	switch {
	case errors.Is(err, io.EOF):
		b.ended.Store(true)
	case isDone(b.closed): // the status is on its way, or out
	case err != nil && peerGone(err):
		// Nobody reads any more, so nobody would notice that the peer left.
		b.call.cancel(err)
		b.call.unread()
	case err != nil:
		b.call.cancel(errMalformed)
	case b.borders.lost:
		b.call.cancel(errLarge)
	}
	return n, err
}

// peerGone tells the end of a connection, or of the call, from a body that is
// not what it should be.
func peerGone(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, errUnmasked) || errors.Is(err, errControl)
}

// fill reads until gRPC can act on what it gets. It never waits for more than
// the rest of a message that has begun.
func (b *inbound) fill(p []byte) (n int, err error) {
	for {
		m, err := b.body.Read(p[n:])
		b.borders.advance(p[n : n+m])
		if b.call.ws != nil {
			b.call.ws.passed(m)
		}
		n += m
		if err != nil || n == len(p) || n > 0 && b.borders.settled() {
			return n, err
		}
	}
}

func (b *inbound) waitRoom() error {
	for b.full() {
		stalled := time.NewTimer(b.stall)
		select {
		case <-b.room:
			stalled.Stop()
		case <-stalled.C:
			b.call.cancel(errStalled)
			return errStalled
		case <-b.call.ctx.Done():
			stalled.Stop()
			return context.Cause(b.call.ctx)
		case <-b.closed:
			stalled.Stop()
			return errClosing
		}
	}
	return nil
}

func (b *inbound) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.reads) >= b.bound+b.extra
}

// want has n bytes read that the handler waits for.
func (b *inbound) want(n int) {
	b.mu.Lock()
	b.extra = n/readSize + 1
	b.mu.Unlock()
	b.hasRoom()
}

func (b *inbound) hasRoom() {
	select {
	case b.room <- struct{}{}:
	default:
	}
}

// consumed credits n bytes that the handler has received.
func (b *inbound) consumed(n int) {
	b.mu.Lock()
	b.part, b.extra = b.part+n, 0
	for len(b.reads) > 0 && b.part >= b.reads[0] {
		b.part -= b.reads[0]
		b.reads = b.reads[1:]
	}
	b.mu.Unlock()
	b.hasRoom()
}

// Close is called once the handler has returned, beside Read. Over a
// websocket the wrapper writes the trailers in it, so everything before them
// has to be out.
func (b *inbound) Close() error {
	var err error
	b.once.Do(func() {
		b.timer.Stop()
		b.out.close()
		b.call.settle(b.out.Header())
		close(b.closed)
		b.call.hangUp(b.ended.Load())
		err = b.body.Close()
	})
	return err
}

// credits tells each call's inbound what its handler has received.
type credits struct{}

// HandleRPC implements stats.Handler.
func (credits) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if in, ok := s.(*stats.InPayload); ok {
		callOf(ctx).in.consumed(in.WireLength)
	}
}

// TagRPC implements stats.Handler.
func (credits) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn implements stats.Handler.
func (credits) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (credits) HandleConn(context.Context, stats.ConnStats) {}
