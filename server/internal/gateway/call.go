package gateway

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// call is one grpc-web call: what the layers around the wrapper share.
type call struct {
	// Static.
	address string          // for the bounds by address
	origin  string          // checked; may be empty
	ctx     context.Context // what gRPC gets; its end ends the call
	cancel  context.CancelCauseFunc
	reading *readDeadline
	stop    func() bool // stops ctx from ending reading
	// The wrapper's context. It ends when nobody reads the call's connection
	// any more or it is closed, and not before: the websocket library spins when
	// a context ends that it is reading with, but it does not return from a
	// failed write until a reader finds the connection closed, if there is one,
	// or the context ends.
	wrapper context.Context
	unread  context.CancelFunc
	// hangUp bounds what is still read from the peer once the handler has
	// returned; ended says that the body was read to its end.
	hangUp func(ended bool)

	// Set before gRPC gets the call.
	in      *inbound
	refused bool // there are too many calls
}

type callKey struct{}
type connKey struct{}

func newCall(r *http.Request) *call {
	nc, _ := r.Context().Value(connKey{}).(net.Conn)
	c := &call{
		address: addressOf(r.RemoteAddr),
		origin:  r.Header.Get("Origin"),
		reading: &readDeadline{conn: nc},
	}
	c.ctx, c.cancel = context.WithCancelCause(context.WithValue(r.Context(), callKey{}, c))
	c.wrapper, c.unread = context.WithCancel(context.WithoutCancel(c.ctx))
	// A context ends neither a Read of a body nor one of a connection.
	c.stop = context.AfterFunc(c.ctx, c.reading.abort)
	return c
}

// end releases the call's context, and leaves the connection alone.
func (c *call) end() {
	c.stop()
	c.cancel(nil)
	c.unread()
}

// forWrapper is the request as the wrapper gets it.
func (c *call) forWrapper(r *http.Request) *http.Request { return r.WithContext(c.wrapper) }

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// Origin returns the web origin that a handler's call came from, checked
// against the allowed ones; empty if no browser page made it or it did not
// come through a gateway.
func Origin(ctx context.Context) string {
	if c := callOf(ctx); c != nil {
		return c.origin
	}
	return ""
}

// serveGRPC is what the wrapper calls with a request that looks like gRPC.
func (g *Gateway) serveGRPC(w http.ResponseWriter, r *http.Request) {
	c := callOf(r.Context())
	if c == nil { // not one of ours: the wrapper passes on what it does not know
		http.NotFound(w, r)
		return
	}
	if c.refused {
		refuse(w, r)
		return
	}
	// The wrapper ends its context when a websocket's peer has gone.
	gone := context.AfterFunc(r.Context(), func() { c.cancel(context.Canceled) })
	defer gone()
	r = r.WithContext(c.ctx)
	r.Header = g.metadata.only(r.Header)
	c.in = g.newInbound(c, r.Body, newOutbound(c.ctx, w, c.cancel), g.clientStreams[r.URL.Path])
	// gRPC closes the body, unless it refuses the request's header: then the
	// wrapper would leave a websocket open.
	defer c.in.Close()
	r.Body = c.in
	g.grpc.ServeHTTP(c.in.out, r)
}

// readDeadline bounds reads of a call's connection. Safe for concurrent use.
type readDeadline struct {
	mu      sync.Mutex
	conn    net.Conn
	aborted bool
}

// set ends reads at t, or never if t is zero, unless they were aborted.
func (d *readDeadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.aborted {
		_ = d.conn.SetReadDeadline(t)
	}
}

// abort ends reads for good.
func (d *readDeadline) abort() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.aborted = true
	_ = d.conn.SetReadDeadline(time.Unix(1, 0))
}
