package gateway

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// wsConn is what the websocket library has of a connection.
//
// Once the call has its status the library sends a Close and waits for the
// peer's. A peer that is sending answers late, behind all it sends; meanwhile
// the library would take the rest of a message that it has half read for
// frames, and give the connection up with bytes unread, so that the peer gets
// a reset, and may lose the status with it. So the library is given a Close at
// once, and hangUp does the waiting.
type wsConn struct {
	net.Conn
	call    *call
	closing atomic.Bool // the handler has returned; trailers and Close follow

	shut     chan struct{} // closed when our Close, behind the status, is out
	shutting sync.Once
	closed   chan struct{} // closed by Close
	once     sync.Once

	mu     sync.Mutex // held by who reads from the peer
	frames frameReader
}

// Read implements net.Conn for the library. When the call has ended and its
// status is not out yet it waits, because the library closes the connection
// when a read fails.
func (c *wsConn) Read(p []byte) (int, error) {
	n, done, err := c.read(p)
	if done {
		return n, err
	}
	select {
	case <-c.shut:
		n, _, err := c.read(p)
		return n, err
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

// read reads from the peer, or what the library is to believe. It is not done
// if the status has to come first.
func (c *wsConn) read(p []byte) (n int, done bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !isDone(c.shut) {
		n, err = c.frames.Read(p)
		switch {
		case err == nil || n > 0:
			return n, true, nil
		case errors.Is(err, errLarge):
			c.call.cancel(errLarge)
		case errors.Is(err, errBusy):
			c.call.cancel(errBusy)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return 0, true, err
		}
	}
	if !isDone(c.shut) {
		return 0, false, nil
	}
	n, err = c.frames.finish(p)
	return n, true, err
}

// Write is called by the library with the beginning of a frame, if not with
// all of it.
func (c *wsConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	switch {
	case err != nil: // the connection is closed, see conn.Write
		c.call.unread()
	case c.closing.Load() && len(p) > 0 && p[0] == finBit|opClose:
		c.shutting.Do(func() { close(c.shut) })
		c.call.reading.abort() // wakes the library
	}
	return n, err
}

// Close is called by the library. A connection over which the status went is
// left to hangUp.
func (c *wsConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	if isDone(c.shut) {
		return nil
	}
	return c.Conn.Close()
}

// hangUp closes the connection. If the status went out it first discards what
// the peer sends up to its Close, for timeout at most. It does not half-close
// the connection for that: a proxy may take it for the end of both directions.
func (c *wsConn) hangUp(timeout time.Duration) {
	c.once.Do(func() { close(c.closed) })
	if isDone(c.shut) {
		c.mu.Lock()
		c.call.reading.linger(time.Now().Add(timeout))
		if err := c.frames.untilClose(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, io.EOF) {
			c.discard() // the reader was interrupted inside a header
		}
		c.mu.Unlock()
	}
	c.Conn.Close()
}

// discard tells the peer that nothing more comes, and reads until it closes or
// the deadline for reads.
func (c *wsConn) discard() {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, c.Conn)
}

func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
