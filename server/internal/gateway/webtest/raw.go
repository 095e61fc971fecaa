package webtest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
)

// Opcodes of websocket frames.
const (
	OpText   = 1
	OpBinary = 2
	OpClose  = 8
	OpPing   = 9
)

// Raw is a connection on which a test writes what it likes.
type Raw struct {
	net.Conn
	R *bufio.Reader
}

// DialRaw connects to addr.
func DialRaw(addr string) (*Raw, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Raw{Conn: c, R: bufio.NewReader(c)}, nil
}

// UpgradeRequest is the request that begins a websocket for method.
func UpgradeRequest(host, method string) string {
	return "GET " + method + " HTTP/1.1\r\nHost: " + host + "\r\n" +
		"Connection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
		"Sec-WebSocket-Protocol: grpc-websockets\r\n\r\n"
}

// Upgrade upgrades the connection.
func (r *Raw) Upgrade(method string) error {
	if _, err := r.Write([]byte(UpgradeRequest(r.RemoteAddr().String(), method))); err != nil {
		return err
	}
	return r.Switched()
}

// Switched reads the answer to an upgrade.
func (r *Raw) Switched() error {
	resp, err := http.ReadResponse(r.R, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("webtest: %s", resp.Status)
	}
	return nil
}

// WriteFrame writes one websocket frame.
func (r *Raw) WriteFrame(opcode byte, payload []byte) error {
	_, err := r.Write(Frame(opcode, payload))
	return err
}

// Frame returns a whole websocket frame as a client sends it: masked, with a
// mask of zeros, which changes nothing.
func Frame(opcode byte, payload []byte) []byte {
	return append(FrameHeader(opcode, uint64(len(payload))), payload...)
}

// FrameHeader returns the header of a client's frame of n bytes.
func FrameHeader(opcode byte, n uint64) []byte {
	b := []byte{0x80 | opcode}
	switch {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), n)
	}
	return append(b, 0, 0, 0, 0)
}
