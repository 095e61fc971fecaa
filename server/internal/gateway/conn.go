package gateway

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// conn is an accepted connection that ends when its peer takes nothing of
// what was sent for timeout. http.Server has only a timeout for whole
// responses, which cuts healthy streams, and a deadline for each write would
// cut a slow reader; Linux's TCP_USER_TIMEOUT does too, when the reader's
// window is small. What tells the slow from the dead is whether bytes are
// acknowledged.
type conn struct {
	net.Conn

	// Static.
	set     *connSet
	address string
	timeout time.Duration

	// linger is how long Close discards what the peer still sends.
	linger atomic.Int64

	// Of the goroutine that sweeps.
	acked uint64
	since time.Time // when acked last grew, or nothing was to be acknowledged
}

func newConn(nc net.Conn, set *connSet, address string, timeout time.Duration) *conn {
	if tcp, ok := nc.(*net.TCPConn); ok {
		// Best effort: without them the kernel may hold megabytes.
		_ = tcp.SetWriteBuffer(socketBuffer)
		_ = tcp.SetReadBuffer(socketBuffer)
	}
	return &conn{
		Conn:    nc,
		set:     set,
		address: address,
		timeout: timeout,
		since:   time.Now(),
	}
}

// Write writes all of p, however long the peer takes, as long as it takes
// something. On any error the connection is closed, so that whoever reads
// from it, and through that the call, ends too.
func (c *conn) Write(p []byte) (int, error) {
	if !seesAcks {
		_ = c.Conn.SetWriteDeadline(time.Now().Add(c.timeout))
	}
	n, err := c.Conn.Write(p)
	if err != nil {
		_ = c.kill()
	}
	return n, err
}

// sweep ends the connection if the peer is dead. It also finds a peer that
// vanished and is sent nothing but heartbeats, which never fill a buffer.
func (c *conn) sweep(now time.Time) {
	tcp, ok := c.Conn.(*net.TCPConn)
	if !ok {
		return
	}
	acked, waiting, err := sendState(tcp)
	if err != nil {
		return
	}
	if !waiting || acked != c.acked {
		c.acked, c.since = acked, now
		return
	}
	if now.Sub(c.since) >= c.timeout {
		// A dead peer's bytes are not worth the kernel's memory.
		_ = tcp.SetLinger(0)
		_ = c.kill()
	}
}

// Close closes the connection. If its peer is in the middle of a request it is
// told first that nothing more comes, and what it sends meanwhile is discarded.
// A second call does not wait.
func (c *conn) Close() error {
	if d := time.Duration(c.linger.Swap(0)); d > 0 && c.CloseWrite() == nil {
		_ = c.Conn.SetReadDeadline(time.Now().Add(d))
		_, _ = io.Copy(io.Discard, c.Conn)
	}
	return c.kill()
}

// kill closes the connection at once; later calls do nothing.
func (c *conn) kill() error {
	c.set.remove(c)
	return c.Conn.Close()
}

// CloseWrite lets http.Server end a response without a reset that would take
// the response's last bytes with it.
func (c *conn) CloseWrite() error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		return tcp.CloseWrite()
	}
	return errors.ErrUnsupported
}
