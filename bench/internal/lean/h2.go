package lean

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// HTTP/2 (RFC 9113) as far as a gRPC client needs it. GOAWAY it does not: the
// server ends the streams, or goes on with them.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameRSTStream    = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameWindowUpdate = 0x8
	frameContinuation = 0x9

	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8

	settingHeaderTableSize   = 0x1
	settingInitialWindowSize = 0x4

	frameHeaderLen = 9
	maxFrame       = 16 << 10
	defaultWindow  = 65535
	preface        = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

	// Generous is the largest window there is.
	Generous = 1<<31 - 1
	// grantAt is when a generous window is filled up again.
	grantAt = 1 << 30
)

// codeUnavailable is the gRPC code of a call whose connection was lost.
const codeUnavailable = 14

// ErrProtocol is wrapped when a server speaks no HTTP/2 that this client knows.
var ErrProtocol = errors.New("lean: protocol error")

// Handler is told what happens on a stream, on the loop's thread.
type Handler interface {
	// Message takes one gRPC message; b is valid during the call only. An
	// error ends the connection with it.
	Message(b []byte) error
	// End is called last, with the gRPC status.
	// details is the encoded google.rpc.Status, or nil.
	End(code int, message string, details []byte)
}

// H2 is gRPC's wire. Fill in the exported fields and give it to Loop.Dial.
type H2 struct {
	// Window is how many bytes a stream may get before the client has granted
	// more: Generous, which is filled up for ever, or less, which never is, so
	// that the stream stalls while its connection goes on answering.
	Window uint32
	// Ready is called when streams can be opened.
	Ready func(*H2)
	// Gone is called when the connection has ended; may be nil.
	Gone func(error)

	conn    *Conn
	streams map[uint32]*Stream
	next    uint32
	got     uint32 // bytes of DATA since the connection's window was filled up
	// What the server takes.
	window  int
	initial int
	settled bool // its first SETTINGS came
	enc     *hpack.Encoder
	encoded bytes.Buffer
}

// Conn returns the connection, once it stands.
func (h *H2) Conn() *Conn { return h.conn }

// Connected implements Wire.
func (h *H2) Connected(c *Conn) {
	h.conn, h.streams, h.next = c, make(map[uint32]*Stream), 1
	h.window, h.initial = defaultWindow, defaultWindow
	h.enc = hpack.NewEncoder(&h.encoded)
	h.enc.SetMaxDynamicTableSize(0) // each header block stands for itself

	b := []byte(preface)
	b = appendFrame(b, frameSettings, 0, 0, 12)
	// No table for the server's headers either: they can be decoded, or
	// skipped, one by one.
	b = appendSetting(b, settingHeaderTableSize, 0)
	b = appendSetting(b, settingInitialWindowSize, h.Window)
	b = appendWindowUpdate(b, 0, Generous-defaultWindow)
	c.Write(b)
}

// Lost implements Wire.
func (h *H2) Lost(err error) {
	for _, s := range h.streams {
		s.on.End(codeUnavailable, err.Error(), nil)
	}
	h.streams = nil
	if h.Gone != nil {
		h.Gone(err)
	}
}

// Data implements Wire.
func (h *H2) Data(b []byte) (int, error) {
	taken := 0
	for {
		f := b[taken:]
		if len(f) < frameHeaderLen {
			return taken, nil
		}
		n := int(f[0])<<16 | int(f[1])<<8 | int(f[2])
		if n > maxFrame {
			return taken, fmt.Errorf("%w: frame of %d bytes", ErrProtocol, n)
		}
		if len(f) < frameHeaderLen+n {
			return taken, nil
		}
		id := binary.BigEndian.Uint32(f[5:]) & Generous
		if err := h.frame(f[3], f[4], id, f[frameHeaderLen:frameHeaderLen+n]); err != nil || h.conn.closed {
			return taken, err
		}
		taken += frameHeaderLen + n
	}
}

func (h *H2) frame(kind, flags byte, id uint32, p []byte) error {
	switch kind {
	case frameData:
		return h.data(flags, id, p)
	case frameHeaders:
		return h.headers(flags, id, p)
	case frameRSTStream:
		h.end(id, codeUnavailable, "stream was reset", nil)
	case frameSettings:
		return h.settings(flags, p)
	case framePing:
		if flags&flagAck == 0 {
			h.conn.Write(append(appendFrame(nil, framePing, flagAck, 0, len(p)), p...))
		}
	case frameWindowUpdate:
		if len(p) != 4 {
			return fmt.Errorf("%w: WINDOW_UPDATE of %d bytes", ErrProtocol, len(p))
		}
		h.granted(id, int(binary.BigEndian.Uint32(p)&Generous))
	case frameContinuation:
		return fmt.Errorf("%w: CONTINUATION", ErrProtocol)
	}
	return nil
}

func (h *H2) data(flags byte, id uint32, p []byte) error {
	if flags&flagPadded != 0 {
		return fmt.Errorf("%w: padding", ErrProtocol)
	}
	if h.got += uint32(len(p)); h.got >= grantAt {
		h.conn.Write(appendWindowUpdate(nil, 0, h.got))
		h.got = 0
	}
	s := h.streams[id]
	if s == nil {
		return nil // reset by us
	}
	if err := s.data(p); err != nil {
		return err
	}
	if flags&flagEndStream != 0 {
		h.end(id, codeUnavailable, "stream ended without a status", nil)
	}
	return nil
}

func (h *H2) headers(flags byte, id uint32, p []byte) error {
	if flags&flagEndHeaders == 0 || flags&flagPadded != 0 {
		return fmt.Errorf("%w: HEADERS with flags %#x", ErrProtocol, flags)
	}
	if flags&flagEndStream == 0 {
		return nil // the response begins; its status comes at the end
	}
	fields, err := hpack.NewDecoder(0, nil).DecodeFull(p)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	code, message := 2, "no grpc-status"
	var details []byte
	for _, f := range fields {
		switch f.Name {
		case "grpc-status":
			if code, err = strconv.Atoi(f.Value); err != nil {
				return fmt.Errorf("%w: grpc-status %q", ErrProtocol, f.Value)
			}
			if message == "no grpc-status" {
				message = ""
			}
		case "grpc-message":
			message = f.Value
		case "grpc-status-details-bin":
			if details, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(f.Value, "=")); err != nil {
				return fmt.Errorf("%w: grpc-status-details-bin: %w", ErrProtocol, err)
			}
		}
	}
	h.end(id, code, message, details)
	return nil
}

func (h *H2) settings(flags byte, p []byte) error {
	if flags&flagAck != 0 {
		return nil
	}
	for ; len(p) >= 6; p = p[6:] {
		if binary.BigEndian.Uint16(p) == settingInitialWindowSize {
			v := int(binary.BigEndian.Uint32(p[2:]))
			for _, s := range h.streams {
				s.window += v - h.initial
			}
			h.initial = v
		}
	}
	h.conn.Write(appendFrame(nil, frameSettings, flagAck, 0, 0))
	if !h.settled {
		h.settled = true
		h.Ready(h)
	}
	return nil
}

func (h *H2) granted(id uint32, n int) {
	if id != 0 {
		if s := h.streams[id]; s != nil {
			s.window += n
			s.flush()
		}
		return
	}
	h.window += n
	for _, s := range h.streams {
		if s.Pending() > 0 {
			s.flush()
		}
	}
}

func (h *H2) end(id uint32, code int, message string, details []byte) {
	if s := h.streams[id]; s != nil {
		delete(h.streams, id)
		s.ended = true
		s.on.End(code, message, details)
	}
}

func appendFrame(b []byte, kind, flags byte, id uint32, n int) []byte {
	b = append(b, byte(n>>16), byte(n>>8), byte(n), kind, flags)
	return binary.BigEndian.AppendUint32(b, id)
}

func appendSetting(b []byte, id uint16, v uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id), v)
}

func appendWindowUpdate(b []byte, id, n uint32) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, frameWindowUpdate, 0, id, 4), n)
}
