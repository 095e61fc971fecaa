package peers

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/reprise-chat/reprise/bench/internal/lean"
	"github.com/reprise-chat/reprise/bench/internal/load"
	"github.com/reprise-chat/reprise/bench/internal/proc"
)

// NATS is core NATS: it delivers at most once, and keeps nothing for who was
// away. So it does less than the others, and shows what that saves.
type NATS struct{ noSetup }

// Name implements load.Target.
func (NATS) Name() string { return "core NATS" }

// Start implements load.Target.
func (NATS) Start(_ string, port uint16) (*proc.Server, error) {
	return proc.Self(Command, kindNATS, loopback(port))
}

// Dial implements load.Target.
func (NATS) Dial(loop *lean.Loop, addr netip.AddrPort, cfg load.Config, on load.On) load.Client {
	c := &natsClient{common: newCommon(cfg, on)}
	loop.Dial(addr, c)
	return c
}

// natsClient speaks NATS's protocol:
// https://docs.nats.io/reference/reference-protocols/nats-protocol
// A client that publishes is "verbose": the server answers each command with
// +OK, in order. Nothing else says that it has an event, and that it has says
// nothing of who will get it.
type natsClient struct {
	common
	conn    *lean.Conn
	greeted bool
	out     []byte
	// due counts the answers that come before those to publications, and
	// waiting are the publications that have none.
	due     int
	waiting []uint64
}

// Connected implements lean.Wire: the server speaks first.
func (c *natsClient) Connected(conn *lean.Conn) {
	if c.conn = conn; c.closed {
		conn.Close()
	}
}

// Lost implements lean.Wire.
func (c *natsClient) Lost(err error) { c.gone(err) }

// Close implements load.Client.
func (c *natsClient) Close() {
	c.closed = true
	if c.conn != nil {
		c.conn.Close()
	}
}

// Attach implements load.Client: it subscribes to the rooms. The answer to a
// PING behind that says that the server has done so.
func (c *natsClient) Attach() {
	b := c.out[:0]
	if !c.cfg.Deaf {
		for i, r := range c.cfg.Rooms {
			b = fmt.Appendf(b, "SUB %s %d\r\n", r, i)
		}
		c.due += len(c.cfg.Rooms)
	}
	b = append(b, "PING\r\n"...)
	c.out = b
	c.unanswered = 1
	c.conn.Write(c.out)
}

// Publish implements load.Client. Core NATS has no idempotency key.
func (c *natsClient) Publish(room int, number uint64, _ string, body []byte) {
	c.waiting = append(c.waiting, number)
	b := c.out[:0]
	b = append(b, "PUB "...)
	b = append(b, c.cfg.Rooms[room]...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\n"...)
	b = append(b, body...)
	b = append(b, "\r\n"...)
	c.out = b
	c.conn.Write(c.out)
}

// Data implements lean.Wire.
func (c *natsClient) Data(b []byte) (int, error) {
	taken := 0
	for !c.closed {
		rest := b[taken:]
		end := bytes.IndexByte(rest, '\n')
		if end < 1 {
			return taken, nil
		}
		line := rest[:end-1] // without the \r
		n := end + 1
		if bytes.HasPrefix(line, []byte("MSG ")) {
			size, err := c.msg(line[4:], rest[n:])
			if err != nil || size < 0 {
				return taken, err
			}
			n += size
		} else if err := c.line(line); err != nil {
			return taken, err
		}
		taken += n
	}
	return taken, nil
}

// msg takes a message, whose line says "subject sid size", and returns how many
// bytes follow the line; -1 if not all of them are in b.
func (c *natsClient) msg(line, b []byte) (int, error) {
	subject, rest, _ := bytes.Cut(line, []byte{' '})
	_, digits, ok := bytes.Cut(rest, []byte{' '})
	size := 0
	for _, d := range digits {
		ok = ok && d >= '0' && d <= '9' && size < maxMessage
		size = size*10 + int(d-'0')
	}
	if !ok {
		return 0, fmt.Errorf("%w: MSG %q", errProtocol, line)
	}
	if len(b) < size+2 {
		return -1, nil
	}
	return size + 2, c.event(subject, b[:size])
}

func (c *natsClient) line(line []byte) error {
	switch word, _, _ := bytes.Cut(line, []byte{' '}); string(word) {
	case "INFO":
		if !c.greeted { // further ones tell of a cluster
			c.greeted = true
			c.due = 1
			c.conn.Write(fmt.Appendf(nil, `CONNECT {"verbose":%t,"pedantic":false,"lang":"reprise-bench","version":"0","protocol":1}`+"\r\n", !c.cfg.ReadOnly))
			c.connected(c.Attach)
		}
	case "PING":
		c.conn.Write([]byte("PONG\r\n"))
	case "PONG":
		c.joined()
	case "+OK":
		return c.ok()
	case "-ERR":
		return errors.New("peers: NATS says " + string(line))
	default:
		return fmt.Errorf("%w: %q", errProtocol, line)
	}
	return nil
}

func (c *natsClient) ok() error {
	switch {
	case c.due > 0:
		c.due--
	case len(c.waiting) == 0:
		return fmt.Errorf("%w: +OK to nothing", errProtocol)
	default:
		number := c.waiting[0]
		c.waiting = c.waiting[1:]
		c.receipt(number, nil)
	}
	return nil
}
