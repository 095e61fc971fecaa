package sim

import (
	"context"
	"errors"
	"net"
	"sync"
)

var errDown = errors.New("sim: connection refused")

// network is the connections between clients and the server of the moment.
type network struct {
	mu    sync.Mutex
	dial  func(context.Context) (net.Conn, error) // nil: the server is down
	conns map[*conn]struct{}
}

func newNetwork() *network { return &network{conns: make(map[*conn]struct{})} }

// connect dials for a client.
func (n *network) connect(ctx context.Context, who string) (net.Conn, error) {
	n.mu.Lock()
	dial := n.dial
	n.mu.Unlock()
	if dial == nil {
		return nil, errDown
	}
	inner, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: inner, n: n, who: who, budget: -1, gone: make(chan struct{})}
	n.mu.Lock()
	n.conns[c] = struct{}{}
	n.mu.Unlock()
	return c, nil
}

// each calls f with the connections of a client; of all if who is empty.
func (n *network) each(who string, f func(*conn)) {
	n.mu.Lock()
	var of []*conn
	for c := range n.conns {
		if who == "" || c.who == who {
			of = append(of, c)
		}
	}
	n.mu.Unlock()
	for _, c := range of {
		f(c)
	}
}

// serve has clients reach a server from now on; nil: nobody answers, and all
// connections are gone.
func (n *network) serve(dial func(context.Context) (net.Conn, error)) {
	n.mu.Lock()
	n.dial = dial
	n.mu.Unlock()
	if dial == nil {
		n.each("", func(c *conn) { c.Close() })
	}
}

// conn is the client's end of a connection.
type conn struct {
	net.Conn
	n    *network
	who  string
	gone chan struct{}
	once sync.Once

	mu     sync.Mutex
	budget int           // bytes until it is cut; negative: none
	dark   bool          // half-open: takes everything, brings nothing
	thaw   chan struct{} // frozen until it is closed; nil: not frozen
}

func (c *conn) Close() error {
	c.once.Do(func() { close(c.gone) })
	c.n.mu.Lock()
	delete(c.n.conns, c)
	c.n.mu.Unlock()
	return c.Conn.Close()
}

// cutAfter cuts the connection when so many more bytes have passed.
func (c *conn) cutAfter(bytes int) {
	c.mu.Lock()
	c.budget = bytes
	c.mu.Unlock()
	if bytes == 0 {
		c.Close()
	}
}

// darken makes the connection half-open: neither end learns of it.
func (c *conn) darken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dark = true
}

// freeze holds back everything, both ways, until the returned function is
// called: then it arrives late.
func (c *conn) freeze() (thaw func()) {
	thawed := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.thaw = thawed
	return func() { close(thawed) }
}

// wait returns when the connection is not frozen.
func (c *conn) wait() {
	c.mu.Lock()
	thaw := c.thaw
	c.mu.Unlock()
	if thaw == nil {
		return
	}
	select {
	case <-thaw:
	case <-c.gone:
	}
}

// allow returns how many of n bytes may pass, and whether any do.
func (c *conn) allow(n int) (passing int, dark bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.budget >= 0 {
		n = min(n, c.budget)
		c.budget -= n
	}
	return n, c.dark
}

// Read implements net.Conn. What was read when the connection goes dark is
// lost, as what is on the wire is.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.wait()
	pass, dark := c.allow(n)
	if dark {
		<-c.gone
		return 0, net.ErrClosed
	}
	if pass < n {
		c.Close()
		return pass, net.ErrClosed
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	c.wait()
	pass, dark := c.allow(len(p))
	if dark {
		return len(p), nil
	}
	n, err := c.Conn.Write(p[:pass])
	if err == nil && pass < len(p) {
		c.Close()
		return n, net.ErrClosed
	}
	return n, err
}
