package webtest

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/coder/websocket"
	"google.golang.org/protobuf/proto"
)

// Options of a call.
type Options struct {
	// Metadata is sent as the websocket's header block, or as HTTP headers.
	Metadata http.Header
	// Upgrade are headers of the websocket's HTTP request.
	Upgrade http.Header
	// Host overrides the Host header.
	Host string
	// Client makes a websocket's HTTP request; nil means the default one.
	Client *http.Client
	// Compress offers permessage-deflate.
	Compress bool
}

// Websocket is one call over grpc-websockets. Sends and Recv may run beside
// each other.
type Websocket struct {
	stream
	Conn *websocket.Conn
	// Response is the answer to the upgrade.
	Response *http.Response
	// Messages counts websocket messages received.
	Messages atomic.Int64
}

// DialWebsocket begins a call of method ("/package.Service/Method") at base
// ("http://host:port"). The context is for all of the call.
func DialWebsocket(ctx context.Context, base, method string, o Options) (*Websocket, error) {
	opts := &websocket.DialOptions{
		Subprotocols: []string{"grpc-websockets"},
		HTTPHeader:   o.Upgrade,
		Host:         o.Host,
		HTTPClient:   o.Client,
	}
	if o.Compress {
		opts.CompressionMode = websocket.CompressionContextTakeover
	}
	c, resp, err := websocket.Dial(ctx, strings.Replace(base, "http", "ws", 1)+method, opts)
	w := &Websocket{Conn: c, Response: resp}
	if err != nil {
		return w, err
	}
	c.SetReadLimit(16 << 20)
	w.r = &messageReader{ctx: ctx, w: w}
	return w, w.Send([]byte(HeaderBlock(o.Metadata)))
}

// HeaderBlock is the first websocket message of a call.
func HeaderBlock(md http.Header) string {
	var b strings.Builder
	if md.Get("Content-Type") == "" {
		b.WriteString("content-type: application/grpc-web+proto\r\n")
	}
	for name, values := range md {
		for _, v := range values {
			b.WriteString(strings.ToLower(name) + ": " + v + "\r\n")
		}
	}
	return b.String()
}

// Send sends one websocket message as it is.
func (w *Websocket) Send(b []byte) error {
	return w.Conn.Write(w.ctx(), websocket.MessageBinary, b)
}

// SendMessage sends one gRPC message.
func (w *Websocket) SendMessage(m proto.Message) error { return w.SendData(Prefixed(m)) }

// SendData sends bytes of the gRPC stream.
func (w *Websocket) SendData(b []byte) error { return w.Send(append([]byte{0}, b...)) }

// CloseSend half-closes the call.
func (w *Websocket) CloseSend() error { return w.Send([]byte{1}) }

// Recv reads the next message; io.EOF after the last one if the status is OK,
// else the status.
func (w *Websocket) Recv(m proto.Message) error { return w.recv(m) }

// Close cancels the call without a handshake.
func (w *Websocket) Close() { _ = w.Conn.CloseNow() }

func (w *Websocket) ctx() context.Context { return w.r.(*messageReader).ctx }

// messageReader makes one byte stream of binary messages.
type messageReader struct {
	ctx  context.Context
	w    *Websocket
	rest []byte
}

func (r *messageReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		_, b, err := r.w.Conn.Read(r.ctx)
		if err != nil {
			return 0, err
		}
		r.w.Messages.Add(1)
		r.rest = b
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
