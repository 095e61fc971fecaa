package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/reprise-chat/reprise/server/internal/limit"
	"github.com/reprise-chat/reprise/server/internal/reason"
)

// serveWebsocket serves one call over a websocket of its own, or refuses it.
func (g *Gateway) serveWebsocket(w http.ResponseWriter, r *http.Request, why *reason.Error) {
	c := newCall(r)
	defer c.end()
	defer g.admit(c, why)()
	// The websocket library would agree to compress, which costs memory by the
	// connection and lets a small message unpack to a large one.
	r.Header.Del("Sec-Websocket-Extensions")
	up := &upgrade{ResponseWriter: w, opts: &g.opts, messages: g.messages, call: c}
	defer up.close()
	c.hangUp = func(bool) { up.conn.closing.Store(true) }
	// Not ServeHTTP, which has a 403 for methods that are not registered.
	g.wrapper.HandleGrpcWebsocketRequest(up, c.forWrapper(r))
}

// upgrade hands its connection over to the websocket library once the call's
// header block has come and is good. The wrapper would wait for it for ever,
// take any size of it, and after a bad one leave the connection open and, even
// if that is closed, a goroutine of the library's behind.
type upgrade struct {
	http.ResponseWriter
	opts     *Options
	messages *limit.Budget
	call     *call
	conn     *wsConn
}

// Hijack implements http.Hijacker. The answer to the upgrade is out when
// http.Server has hijacked.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	u.conn = &wsConn{Conn: nc, call: u.call, shut: make(chan struct{}), closed: make(chan struct{})}
	u.call.reading.set(time.Now().Add(u.opts.FirstFrameTimeout))
	begin, err := readHeaderBlock(rw.Reader, u.opts.MaxHeaderBytes)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = errFirstFrame
		}
		_, _ = nc.Write(closeFrame(err.Error()))
		nc.Close()
		return nil, nil, err
	}
	u.call.reading.set(time.Time{})
	// What was read is read again by the library, and behind it what came
	// early and waits in http.Server's reader.
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	begin = append(begin, early...)
	rw.Reader.Reset(io.MultiReader(bytes.NewReader(begin), nc))
	most := uint64(u.opts.MaxRecvBytes + oversizeSlack)
	l := &wsLease{call: u.call, budget: u.messages, most: most, within: u.opts.RequestTimeout}
	u.call.ws = l
	u.conn.frames = frameReader{src: rw.Reader, most: most, came: l.came, frame: func(length, size uint64, last bool) error {
		return l.frame(u.call.ctx, length, size, last)
	}}
	return u.conn, bufio.NewReadWriter(bufio.NewReader(u.conn), bufio.NewWriter(u.conn)), nil
}

// close closes the connection if it was upgraded.
func (u *upgrade) close() {
	if u.conn != nil {
		if u.call.ws != nil {
			u.call.ws.release()
		}
		u.conn.hangUp(u.opts.CloseTimeout)
	}
}
