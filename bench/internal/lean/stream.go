package lean

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/http2/hpack"
)

// prefixLen is gRPC's prefix of a message: compressed or not, and a length.
const prefixLen = 5

// Stream is one gRPC call.
type Stream struct {
	h  *H2
	id uint32
	on Handler

	in  []byte // the message that is not complete yet, with its prefix
	got uint32 // bytes since the window was filled up

	window  int // what the server takes
	pending []byte
	sent    int  // bytes of pending that were sent
	last    bool // nothing comes after pending
	ended   bool
}

// Open begins a call of method, as "/package.Service/Method", by a user, as
// the token in "authorization: Bearer".
func (h *H2) Open(method, token string, on Handler) *Stream {
	s := &Stream{h: h, id: h.next, on: on, window: h.initial}
	h.next += 2
	h.streams[s.id] = s
	h.encoded.Reset()
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "localhost"},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"authorization", "Bearer " + token},
	} {
		// A bytes.Buffer takes everything.
		_ = h.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	b := appendFrame(nil, frameHeaders, flagEndHeaders, s.id, h.encoded.Len())
	h.conn.Write(append(b, h.encoded.Bytes()...))
	return s
}

// Send sends a message, as far as the server's windows allow, and the rest
// when they do. last: none follows.
func (s *Stream) Send(message []byte, last bool) {
	if s.ended {
		return
	}
	s.pending = append(s.pending, 0)
	s.pending = binary.BigEndian.AppendUint32(s.pending, uint32(len(message)))
	s.pending = append(s.pending, message...)
	s.last = last
	s.flush()
}

// Pending returns how many bytes wait for the server's windows.
func (s *Stream) Pending() int { return len(s.pending) - s.sent }

func (s *Stream) flush() {
	for s.Pending() > 0 {
		n := min(s.Pending(), s.window, s.h.window, maxFrame)
		if n <= 0 {
			s.compact()
			return
		}
		var flags byte
		if s.last && n == s.Pending() {
			flags = flagEndStream
		}
		s.h.conn.Write(appendFrame(nil, frameData, flags, s.id, n))
		s.h.conn.Write(s.pending[s.sent : s.sent+n])
		s.window -= n
		s.h.window -= n
		s.sent += n
	}
	s.pending, s.sent = nil, 0
}

// compact drops what was sent once that is most of it, so that each byte is
// moved at most once.
func (s *Stream) compact() {
	if s.sent > len(s.pending)/2 {
		s.pending = s.pending[:copy(s.pending, s.pending[s.sent:])]
		s.sent = 0
	}
}

// data takes the payload of a DATA frame apart into messages.
func (s *Stream) data(p []byte) error {
	if s.h.Window == Generous {
		if s.got += uint32(len(p)); s.got >= grantAt {
			s.h.conn.Write(appendWindowUpdate(nil, s.id, s.got))
			s.got = 0
		}
	}
	if len(s.in) > 0 {
		s.in = append(s.in, p...)
		p = s.in
	}
	for len(p) >= prefixLen {
		n := int(binary.BigEndian.Uint32(p[1:]))
		if p[0] != 0 {
			return fmt.Errorf("%w: a compressed message", ErrProtocol)
		}
		if len(p) < prefixLen+n {
			break
		}
		if err := s.on.Message(p[prefixLen : prefixLen+n]); err != nil {
			return err
		}
		p = p[prefixLen+n:]
	}
	s.in = append(s.in[:0], p...)
	if len(s.in) == 0 && cap(s.in) > 1<<10 {
		s.in = nil // 1,000 of these add up
	}
	return nil
}
