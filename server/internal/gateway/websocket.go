package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// serveWebsocket serves one call over a websocket of its own.
func (g *Gateway) serveWebsocket(w http.ResponseWriter, r *http.Request) {
	c := newCall(r)
	defer c.end()
	if !g.calls.take(c.address) {
		http.Error(w, tooManyCalls.Message(), http.StatusTooManyRequests)
		return
	}
	defer g.calls.give(c.address)
	// The websocket library would agree to compress, which costs memory by the
	// connection and lets a small message unpack to a large one.
	r.Header.Del("Sec-Websocket-Extensions")
	up := &upgrade{ResponseWriter: w, opts: &g.opts, call: c}
	defer up.close()
	c.hangUp = func(bool) {
		up.conn.closing.Store(true)
		// Trailers may still be on their way to a slow reader.
		c.reading.set(time.Now().Add(g.opts.WriteTimeout + 2*g.opts.CloseTimeout))
	}
	g.wrapper.ServeHTTP(up, c.forWrapper(r))
}

// upgrade hands its connection over to the websocket library once the call's
// header block has come and is good. The wrapper would wait for it for ever,
// take any size of it, and after a bad one leave the connection open and, even
// if that is closed, a goroutine of the library's behind.
type upgrade struct {
	http.ResponseWriter
	opts *Options
	call *call
	conn *wsConn
}

// Hijack implements http.Hijacker. The answer to the upgrade is out when
// http.Server has hijacked.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	u.conn = &wsConn{Conn: nc, reading: u.call.reading, failed: u.call.unread, closeTimeout: u.opts.CloseTimeout}
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
	u.conn.frames.src = rw.Reader
	return u.conn, bufio.NewReadWriter(bufio.NewReader(u.conn), bufio.NewWriter(u.conn)), nil
}

// close closes the connection if it was upgraded.
func (u *upgrade) close() {
	if u.conn != nil {
		u.conn.Close()
	}
}

// wsConn is what the websocket library has of a connection.
type wsConn struct {
	net.Conn
	reading      *readDeadline
	failed       func() // a write has failed
	closeTimeout time.Duration
	closing      atomic.Bool // the handler has returned; trailers and Close follow

	frames frameReader // of the reading goroutine
}

func (c *wsConn) Read(p []byte) (int, error) { return c.frames.Read(p) }

// Write is called by the library with the beginning of a frame, if not with
// all of it.
func (c *wsConn) Write(p []byte) (int, error) {
	if c.closing.Load() && len(p) > 0 && p[0] == finBit|opClose {
		c.reading.set(time.Now().Add(c.closeTimeout))
	}
	n, err := c.Conn.Write(p)
	if err != nil { // the connection is closed, see conn.Write
		c.failed()
	}
	return n, err
}
