package gateway

import (
	"net/http"
	"time"

	"github.com/reprise-chat/reprise/server/internal/reason"
)

// serveFetch serves one grpc-web POST, or refuses it.
func (g *Gateway) serveFetch(w http.ResponseWriter, r *http.Request, why *reason.Error) {
	c := newCall(r)
	defer c.end()
	defer g.admit(c, why)()
	fw := &fetchWriter{ResponseWriter: w, call: c}
	c.hangUp = func(ended bool) {
		// A call that was ended has had its connection's reads aborted, perhaps
		// only in a moment: not even one that is read to its end is used again.
		if !ended || c.ctx.Err() != nil { // ServeHTTP waits for the reading goroutine
			fw.cut = true
			c.reading.abort()
		}
	}
	// Without it the first write of a response waits for the request's end,
	// which a peer can withhold.
	_ = http.NewResponseController(w).EnableFullDuplex()
	g.wrapper.ServeHTTP(fw, c.forWrapper(r))
	if fw.cut {
		// A connection that is closed while its peer sends is reset, and the
		// peer may lose the response with it.
		c.reading.linger(time.Now().Add(g.opts.CloseTimeout))
		if nc, ok := c.reading.conn.(*conn); ok {
			nc.linger.Store(int64(g.opts.CloseTimeout))
		}
	}
}

// admit decides whether a call may go on, and counts it; call the function
// returned at its end.
func (g *Gateway) admit(c *call, why *reason.Error) func() {
	counted := g.calls
	switch {
	case why != nil:
		c.refusal, counted = why, g.refusals
	case !g.calls.take(c.address):
		c.refusal, counted = errCalls, g.refusals
	}
	if counted == g.refusals {
		g.refusals.take(c.address)
	}
	return func() { counted.give(c.address) }
}

// fetchWriter is a response that says that the connection cannot be used
// again when it begins before the request has ended. With full duplex
// http.Server does not see to that, and would take the rest of the request
// for the next one.
type fetchWriter struct {
	http.ResponseWriter
	call  *call
	began bool
	cut   bool // the rest of the request is not read, even if it has come since
}

// WriteHeader implements http.ResponseWriter.
func (w *fetchWriter) WriteHeader(code int) {
	w.begin()
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *fetchWriter) Write(p []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (w *fetchWriter) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

func (w *fetchWriter) begin() {
	if w.began {
		return
	}
	w.began = true
	if w.call.in == nil || w.cut || !w.call.in.ended.Load() {
		w.Header().Set("Connection", "close")
	}
}
