package gateway

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/reprise-chat/reprise/server/internal/limit"
	"github.com/reprise-chat/reprise/server/internal/reason"
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
	// refusal says why the call goes no further; nil if it may.
	refusal *reason.Error

	// Set before gRPC gets the call.
	in          *inbound
	ws          *wsLease // nil: not over a websocket
	contentType string
}

type callKey struct{}
type connKey struct{}

func newCall(r *http.Request) *call {
	nc, _ := r.Context().Value(connKey{}).(net.Conn)
	c := &call{
		address: limit.Address(r.RemoteAddr),
		origin:  r.Header.Get("Origin"),
		reading: &readDeadline{conn: nc},
	}
	c.ctx, c.cancel = context.WithCancelCause(limit.WithFlow(context.WithValue(r.Context(), callKey{}, c), c))
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

// Want implements limit.Flow.
func (c *call) Want(n int) { c.in.want(n) }

// Took implements limit.Flow.
func (c *call) Took(n int) { c.in.consumed(n) }

// serveGRPC is what the wrapper calls with a request that looks like gRPC.
func (g *Gateway) serveGRPC(w http.ResponseWriter, r *http.Request) {
	c := callOf(r.Context())
	if c == nil { // not one of ours: the wrapper passes on what it does not know
		http.NotFound(w, r)
		return
	}
	r.Header = g.metadata.only(r.Header)
	c.contentType = r.Header.Get("Content-Type")
	if c.refusal == nil {
		c.refusal = checkHeader(r.Header)
	}
	// The wrapper ends its context when a websocket's peer has gone.
	gone := context.AfterFunc(r.Context(), func() { c.cancel(context.Canceled) })
	defer gone()
	r = r.WithContext(c.ctx)
	c.in = g.newInbound(c, r.Body, newOutbound(c.ctx, w, c.cancel), g.clientStreams[r.URL.Path])
	// gRPC closes the body, unless it refuses the request's header: then the
	// wrapper would leave a websocket open.
	defer c.in.Close()
	if c.refusal != nil {
		c.cancel(c.refusal)
		return
	}
	r.Body = c.in
	g.grpc.ServeHTTP(c.in.out, r)
}

// settle gives the call the status that its end deserves if it is not gRPC's:
// gRPC drops a status when the call's context ends before it has written it.
// Called once the handler's output is out, before the trailers are.
func (c *call) settle(h http.Header) {
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", c.contentType)
	}
	var why *reason.Error
	switch given := h.Get("Grpc-Status"); {
	case given == "0":
	case errors.As(context.Cause(c.ctx), &why):
		setStatus(h, why.GRPCStatus())
	case given == "":
		setStatus(h, reason.Canceled.Status("the client went away", 0))
	case h.Get("Grpc-Status-Details-Bin") == "":
		if own := grpcReasons[given]; own != nil { // the message is encoded already
			message := h.Get("Grpc-Message")
			setStatus(h, own.Status(message, 0))
			h.Set("Grpc-Message", message)
		}
	}
}

// grpcReasons are the reasons of gRPC's own statuses, by code.
var grpcReasons = map[string]*reason.Reason{
	"1": reason.Canceled,
	"4": reason.Deadline,
	"8": reason.FrameTooLarge, // once decompressed
}

// readDeadline bounds reads of a call's connection. Safe for concurrent use.
type readDeadline struct {
	mu        sync.Mutex
	conn      net.Conn
	aborted   bool
	lingering bool
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
	if !d.lingering {
		_ = d.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// linger lets reads of what nobody wants go on until t, whatever ends. No read
// of what somebody wants may be under way: it might miss that it was aborted.
func (d *readDeadline) linger(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.aborted, d.lingering = true, true
	_ = d.conn.SetReadDeadline(t)
}
