package peers

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // RFC 6455 wants it
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/reprise-chat/reprise/bench/internal/lean"
)

// WebSocket (RFC 6455) as far as a client of these servers needs it: no
// extensions, and no message in several frames.
const (
	opText   = 0x1
	opBinary = 0x2
	opClose  = 0x8
	opPing   = 0x9
	opPong   = 0xA

	bitFin  = 0x80
	bitMask = 0x80

	// maxMessage is far beyond what a server sends at once: a batch.
	maxMessage = 16 << 20
	maxHeader  = 8 << 10
)

var errProtocol = errors.New("peers: protocol error")

// webSocket is a connection that messages come from. It is used on its loop's
// thread only.
type webSocket struct {
	path     string // with the query
	protocol string // the subprotocol asked for; may be empty
	opcode   byte   // of messages both ways
	// opened is called when messages can be sent.
	opened func()
	// message takes a message, which is valid during the call only.
	message func([]byte) error
	// gone is called last.
	gone func(error)

	conn   *lean.Conn
	open   bool
	closed bool
	head   []byte
}

// key need not differ between connections: it only shows that the server
// speaks WebSocket, and there is no cache between us.
const key = "cmVwcmlzZSBsZWFuIHdzIQ=="

// Connected implements lean.Wire.
func (w *webSocket) Connected(c *lean.Conn) {
	w.conn = c
	if w.closed {
		c.Close()
		return
	}
	request := "GET " + w.path + " HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\n"
	if w.protocol != "" {
		request += "Sec-WebSocket-Protocol: " + w.protocol + "\r\n"
	}
	c.Write([]byte(request + "\r\n"))
}

// Lost implements lean.Wire.
func (w *webSocket) Lost(err error) { w.gone(err) }

// Close ends the connection without a word.
func (w *webSocket) Close() {
	w.closed = true
	if w.conn != nil {
		w.conn.Close()
	}
}

// Send sends a message.
func (w *webSocket) Send(b []byte) { w.send(w.opcode, b) }

// send masks with zeros: the server does the same work, and the client none.
func (w *webSocket) send(opcode byte, b []byte) {
	h := w.head[:0]
	h = append(h, bitFin|opcode)
	switch n := len(b); {
	case n < 126:
		h = append(h, bitMask|byte(n))
	case n < 1<<16:
		h = binary.BigEndian.AppendUint16(append(h, bitMask|126), uint16(n))
	default:
		h = binary.BigEndian.AppendUint64(append(h, bitMask|127), uint64(n))
	}
	h = append(h, 0, 0, 0, 0)
	w.head = h
	w.conn.Write(h)
	w.conn.Write(b)
}

// Data implements lean.Wire.
func (w *webSocket) Data(b []byte) (int, error) {
	taken := 0
	if !w.open {
		n, err := w.upgraded(b)
		if n == 0 || err != nil {
			return 0, err
		}
		taken = n
		w.open = true
		w.opened()
	}
	for !w.closed {
		opcode, p, n, err := frame(b[taken:])
		if n == 0 || err != nil {
			return taken, err
		}
		if err := w.frame(opcode, p); err != nil {
			return taken, err
		}
		taken += n
	}
	return taken, nil
}

func (w *webSocket) upgraded(b []byte) (int, error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > maxHeader {
			return 0, fmt.Errorf("%w: endless response", errProtocol)
		}
		return 0, nil
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // RFC 6455 wants it
	accept := base64.StdEncoding.EncodeToString(sum[:])
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 101 ")) || !bytes.Contains(b[:end], []byte(accept)) {
		return 0, fmt.Errorf("%w: the server answers %q", errProtocol, b[:min(end, 200)])
	}
	return end + 4, nil
}

func (w *webSocket) frame(opcode byte, p []byte) error {
	switch opcode {
	case w.opcode:
		return w.message(p)
	case opPing:
		w.send(opPong, p)
	case opPong:
	case opClose:
		if len(p) < 2 {
			return errors.New("peers: the server closed the connection")
		}
		return fmt.Errorf("peers: the server closed the connection with %d %s", binary.BigEndian.Uint16(p), p[2:])
	default:
		return fmt.Errorf("%w: frame with opcode %#x", errProtocol, opcode)
	}
	return nil
}

// frame takes a frame off the front of b; n is 0 if it is not complete.
func frame(b []byte) (opcode byte, payload []byte, n int, err error) {
	if len(b) < 2 {
		return 0, nil, 0, nil
	}
	opcode = b[0] &^ bitFin
	if b[0]&bitFin == 0 || opcode > opPong || b[1]&bitMask != 0 {
		return 0, nil, 0, fmt.Errorf("%w: frame that begins with %x", errProtocol, b[:2])
	}
	head, size := 2, uint64(b[1])
	switch {
	case size == 126 && len(b) >= 4:
		head, size = 4, uint64(binary.BigEndian.Uint16(b[2:]))
	case size == 127 && len(b) >= 10:
		head, size = 10, binary.BigEndian.Uint64(b[2:])
	case size >= 126:
		return 0, nil, 0, nil
	}
	if size > maxMessage {
		return 0, nil, 0, fmt.Errorf("%w: frame of %d bytes", errProtocol, size)
	}
	n = head + int(size)
	if len(b) < n {
		return 0, nil, 0, nil
	}
	return opcode, b[head:n], n, nil
}
