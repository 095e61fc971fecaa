package peers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/reprise-chat/reprise/bench/internal/lean"
	"github.com/reprise-chat/reprise/bench/internal/load"
	"github.com/reprise-chat/reprise/bench/internal/proc"
)

// SocketIO is Socket.IO with connection state recovery.
type SocketIO struct {
	noSetup

	// Dir is where server.js and its node_modules are.
	Dir string
}

// ErrNotInstalled is wrapped when Socket.IO cannot be measured here. The
// message says what to do.
var ErrNotInstalled = errors.New("peers: Socket.IO is not installed")

// module is the one whose directory peers/socketio is in.
const module = "github.com/reprise-chat/reprise/bench"

// FindSocketIO returns the server that is in this module's directory.
func FindSocketIO() (SocketIO, error) {
	if _, err := exec.LookPath("node"); err != nil {
		return SocketIO{}, fmt.Errorf("%w: install Node 20 or newer: %w", ErrNotInstalled, err)
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output() //nolint:noctx // quick
	if err != nil {
		return SocketIO{}, fmt.Errorf("where is %s? Run this inside of its directory: %w", module, err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "peers", "socketio")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "socket.io")); err != nil {
		return SocketIO{}, fmt.Errorf("%w: run `npm ci` in bench/peers/socketio: %w", ErrNotInstalled, err)
	}
	return SocketIO{Dir: dir}, nil
}

// Name implements load.Target.
func (SocketIO) Name() string { return "Socket.IO" }

// Ahead is how far a publisher may be ahead of the slowest of so many
// subscribers. Socket.IO has no limit to what it queues for its clients and no
// way to hold a publisher back: with four times as much a delivery costs the
// same CPU and the server more memory, and a round takes far longer.
func (SocketIO) Ahead(subscribers int) int { return max(1, 100_000/subscribers) }

// Start implements load.Target.
func (s SocketIO) Start(_ string, port uint16) (*proc.Server, error) {
	return proc.Start("node", filepath.Join(s.Dir, "server.js"), "127.0.0.1", strconv.Itoa(int(port)))
}

// Dial implements load.Target.
func (SocketIO) Dial(loop *lean.Loop, addr netip.AddrPort, cfg load.Config, on load.On) load.Client {
	c := &socketIOClient{common: newCommon(cfg, on)}
	c.ws = &webSocket{
		path: "/socket.io/?EIO=4&transport=websocket", opcode: opText,
		opened: func() {}, message: c.message, gone: c.gone, // the server speaks first
	}
	loop.Dial(addr, c.ws)
	return c
}

// A message is a packet of Engine.IO, and that may carry one of Socket.IO:
// https://socket.io/docs/v4/engine-io-protocol
// https://socket.io/docs/v4/socket-io-protocol
const (
	engineOpen    = "0"
	enginePing    = "2"
	enginePong    = "3"
	socketConnect = "40"
	socketAck     = "43"
	socketEvent   = `42["event","`
	socketRefused = "44"

	// joinAck is the id of the acknowledgement of the rooms. That of a
	// publication is its number and one.
	joinAck = 0
)

// socketIOClient speaks Socket.IO over WebSocket.
type socketIOClient struct {
	common
	ws  *webSocket
	out []byte
}

// Attach implements load.Client: it joins the rooms.
func (c *socketIOClient) Attach() {
	if c.cfg.Deaf {
		c.ready() // who is connected can publish
		return
	}
	rooms, err := json.Marshal(c.cfg.Rooms)
	if err != nil {
		panic(err) // strings
	}
	c.unanswered = 1
	c.ws.Send(fmt.Appendf(nil, `42%d["join",%s]`, joinAck, rooms))
}

// Publish implements load.Client. The names of rooms and the bodies of a
// benchmark have nothing that JSON would escape. Nothing makes a repetition
// harmless, so there is no idempotency key.
func (c *socketIOClient) Publish(room int, number uint64, _ string, body []byte) {
	b := c.out[:0]
	b = append(b, "42"...)
	b = strconv.AppendUint(b, number+1, 10)
	b = append(b, `["publish","`...)
	b = append(b, c.cfg.Rooms[room]...)
	b = append(b, `","`...)
	b = append(b, body...)
	b = append(b, `"]`...)
	c.out = b
	c.ws.Send(c.out)
}

// Close implements load.Client.
func (c *socketIOClient) Close() {
	c.closed = true
	c.ws.Close()
}

func (c *socketIOClient) message(b []byte) error {
	if rest, ok := bytes.CutPrefix(b, []byte(socketEvent)); ok {
		return c.take(rest)
	}
	switch s := string(b); {
	case s == enginePing:
		c.ws.Send([]byte(enginePong))
	case strings.HasPrefix(s, engineOpen):
		c.ws.Send([]byte(socketConnect))
	case strings.HasPrefix(s, socketConnect):
		c.connected(c.Attach)
	case strings.HasPrefix(s, socketAck):
		return c.acknowledged(s[len(socketAck):])
	case strings.HasPrefix(s, socketRefused):
		return errors.New("peers: Socket.IO refuses with " + s)
	default:
		return fmt.Errorf("%w: %q", errProtocol, b[:min(len(b), 100)])
	}
	return nil
}

// take takes the rest of an event: `room","body","offset"]`. The offset is what
// a client would recover from.
func (c *socketIOClient) take(b []byte) error {
	room, b, ok := bytes.Cut(b, []byte(`","`))
	body, _, ok2 := bytes.Cut(b, []byte{'"'})
	if !ok || !ok2 {
		return fmt.Errorf("%w: event %q", errProtocol, b[:min(len(b), 100)])
	}
	return c.event(room, body)
}

func (c *socketIOClient) acknowledged(s string) error {
	id, _, _ := strings.Cut(s, "[")
	ack, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		return fmt.Errorf("%w: acknowledgement %q", errProtocol, s)
	}
	if ack == joinAck {
		c.joined()
	} else {
		c.receipt(ack-1, nil)
	}
	return nil
}
