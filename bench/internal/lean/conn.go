package lean

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Wire is what is spoken on a connection. Its methods are called on the loop's
// thread.
type Wire interface {
	// Connected is called first: the connection stands.
	Connected(*Conn)
	// Data takes bytes off the front of b and returns how many; the rest comes
	// again, with more behind it. b is valid during the call only. An error
	// ends the connection.
	Data(b []byte) (int, error)
	// Lost is called last: the connection has ended, or never stood.
	Lost(error)
}

// Conn is one socket. It is used on its loop's thread only.
type Conn struct {
	loop    *Loop
	wire    Wire
	fd      int
	in      []byte // not taken by the wire yet
	out     []byte // not taken by the socket yet
	dirty   bool   // on the loop's list
	blocked bool   // waiting for the socket to take more
	stands  bool
	paused  bool
	closed  bool
	watched uint32 // the events that epoll tells of
}

// Loop returns the loop that the connection belongs to.
func (c *Conn) Loop() *Loop { return c.loop }

// Write queues bytes; they are written at the end of the loop's turn. The
// caller may reuse b.
func (c *Conn) Write(b []byte) {
	c.out = append(c.out, b...)
	if !c.dirty {
		c.dirty = true
		c.loop.dirty = append(c.loop.dirty, c)
	}
}

// Pause has the connection read nothing more: the kernel's buffers fill, and
// then the server's.
func (c *Conn) Pause() {
	c.paused = true
	c.watch()
}

// Close ends the connection; Lost is called.
func (c *Conn) Close() { c.fail(ErrClosed) }

func (c *Conn) fail(err error) {
	if c.closed {
		return
	}
	c.closed = true
	if c.fd >= 0 {
		delete(c.loop.conns, int32(c.fd))
		_ = unix.Close(c.fd)
	}
	c.wire.Lost(err)
	c.in, c.out = nil, nil
}

func (c *Conn) ready(events uint32) {
	if events&unix.EPOLLOUT != 0 {
		if !c.stands && !c.connected() {
			return
		}
		c.blocked = false
		c.write()
	}
	const over = unix.EPOLLHUP | unix.EPOLLERR
	switch {
	case c.closed:
	case c.paused && events&over != 0: // told whether asked for or not, again and again
		c.fail(fmt.Errorf("lean: paused: %w", io.ErrUnexpectedEOF))
	case !c.paused && events&(unix.EPOLLIN|over) != 0:
		c.read()
	}
}

func (c *Conn) connected() bool {
	code, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	if err != nil {
		c.fail(fmt.Errorf("lean: connect: %w", err))
		return false
	}
	c.stands = true
	c.wire.Connected(c)
	return !c.closed
}

// watch asks for the events that matter now, and for no others: a socket that
// takes bytes is ready to take more, so a loop that is told of it never sleeps.
func (c *Conn) watch() {
	if c.closed || c.fd < 0 {
		return
	}
	e := unix.EpollEvent{Fd: int32(c.fd)}
	if !c.paused {
		e.Events |= unix.EPOLLIN
	}
	if c.blocked || !c.stands {
		e.Events |= unix.EPOLLOUT
	}
	if e.Events == c.watched {
		return
	}
	c.watched = e.Events
	if err := unix.EpollCtl(c.loop.epoll, unix.EPOLL_CTL_MOD, c.fd, &e); err != nil {
		panic(err) // both descriptors are ours
	}
}

func (c *Conn) write() {
	for len(c.out) > 0 {
		n, err := unix.Write(c.fd, c.out)
		if errors.Is(err, unix.EAGAIN) {
			c.blocked = true
			break
		}
		if err != nil {
			c.fail(fmt.Errorf("lean: write: %w", err))
			return
		}
		c.out = c.out[:copy(c.out, c.out[n:])]
	}
	if len(c.out) == 0 {
		c.out = nil // an idle connection keeps nothing
	}
	c.watch()
}

// read takes what the socket has, at most a buffer full: the others have their
// turn, and epoll tells again.
func (c *Conn) read() {
	n, err := unix.Read(c.fd, c.loop.buf)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return
	case err != nil:
		c.fail(fmt.Errorf("lean: read: %w", err))
		return
	case n == 0:
		c.fail(fmt.Errorf("lean: read: %w", io.ErrUnexpectedEOF))
		return
	}
	b := c.loop.buf[:n]
	if len(c.in) > 0 {
		c.in = append(c.in, b...)
		b = c.in
	}
	taken, err := c.wire.Data(b)
	if c.closed {
		return
	}
	if err != nil {
		c.fail(err)
		return
	}
	if rest := b[taken:]; len(rest) == 0 {
		c.in = nil
	} else {
		c.in = append([]byte(nil), rest...)
	}
}
