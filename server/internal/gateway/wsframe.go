package gateway

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Websocket frames, RFC 6455 section 5.2.
const (
	finBit  = 0x80
	maskBit = 0x80

	opContinuation = 0
	opBinary       = 2
	opClose        = 8 // this and above are control frames

	maxControl  = 125
	closeNormal = 1000
	closePolicy = 1008
)

var (
	errUnmasked = errors.New("gateway: a client's websocket frame is not masked")
	errControl  = errors.New("gateway: a websocket control frame is too long")
)

// frameHeader is the header of one frame of a client.
type frameHeader struct {
	raw    []byte // as it came, mask included
	length uint64 // of the payload
}

func (h frameHeader) fin() bool     { return h.raw[0]&finBit != 0 }
func (h frameHeader) opcode() byte  { return h.raw[0] & 0x0f }
func (h frameHeader) control() bool { return h.opcode() >= opClose }
func (h frameHeader) mask() []byte  { return h.raw[len(h.raw)-4:] }

// readFrameHeader reads a header into buf, which has room for one: 14 bytes.
func readFrameHeader(r io.Reader, buf []byte) (frameHeader, error) {
	h := frameHeader{raw: buf[:2]}
	if _, err := io.ReadFull(r, h.raw); err != nil {
		return h, err
	}
	if h.raw[1]&maskBit == 0 {
		return h, errUnmasked
	}
	h.length = uint64(h.raw[1] &^ maskBit)
	wide := 0 // bytes of an extended length
	switch h.length {
	case 126:
		wide = 2
	case 127:
		wide = 8
	}
	h.raw = buf[:2+wide+4]
	if _, err := io.ReadFull(r, h.raw[2:]); err != nil {
		return h, err
	}
	switch wide {
	case 2:
		h.length = uint64(binary.BigEndian.Uint16(h.raw[2:]))
	case 8:
		h.length = binary.BigEndian.Uint64(h.raw[2:])
	}
	if h.control() && h.length > maxControl {
		return h, errControl
	}
	return h, nil
}

// frameReader passes a client's frames on to the websocket library, headers
// and control frames only whole. The library waits for the rest of a control
// frame with a timeout of five seconds, and when that strikes starts
// goroutines in a loop until one of them has closed the connection.
type frameReader struct {
	src   *bufio.Reader
	most  uint64 // bytes of a message
	buf   [14 + maxControl]byte
	ready []byte // of buf, to be passed on
	left  uint64 // bytes of a data frame's payload to come
	size  uint64 // bytes of the message so far
	// frame is told of each data frame before its payload is read.
	frame func(length, size uint64, last bool) error
	came  func() // a message has come whole

	finishing bool
	owed      uint64 // bytes of a payload that finish still gives
	ended     bool   // finish has given a Close
}

func (f *frameReader) Read(p []byte) (int, error) {
	for len(f.ready) == 0 {
		if f.left > 0 {
			n, err := f.src.Read(p[:min(uint64(len(p)), f.left)])
			if f.left -= uint64(n); f.left == 0 && f.size == 0 && f.came != nil {
				f.came()
			}
			return n, err
		}
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.ready)
	f.ready = f.ready[n:]
	return n, nil
}

func (f *frameReader) next() error {
	h, err := readFrameHeader(f.src, f.buf[:])
	if err != nil {
		return err
	}
	if !h.control() {
		if f.size += h.length; f.size > f.most || h.length > f.most {
			return errLarge
		}
		if f.frame != nil {
			if err := f.frame(h.length, f.size, h.fin()); err != nil {
				return err
			}
		}
		if h.fin() {
			f.size = 0
		}
		f.ready, f.left = h.raw, h.length
		return nil
	}
	f.ready = f.buf[:len(h.raw)+int(h.length)]
	_, err = io.ReadFull(f.src, f.ready[len(h.raw):])
	if err != nil {
		f.ready = nil
	}
	return err
}

// finish gives what ends the stream well, without reading any more: the rest
// of what has begun, and a Close.
func (f *frameReader) finish(p []byte) (int, error) {
	if !f.finishing {
		f.finishing, f.owed = true, f.left
	}
	for len(f.ready) == 0 {
		switch {
		case f.owed > 0:
			n := min(uint64(len(p)), f.owed)
			clear(p[:n])
			f.owed -= n
			return int(n), nil
		case f.ended:
			return 0, io.EOF
		}
		f.ended = true
		f.ready = append(f.buf[:0], finBit|opClose, maskBit|2, 0, 0, 0, 0, closeNormal>>8, closeNormal&0xff)
	}
	n := copy(p, f.ready)
	f.ready = f.ready[n:]
	return n, nil
}

// untilClose discards what the client sends up to its Close, and returns nil if
// that came.
func (f *frameReader) untilClose() error {
	for {
		if err := f.discard(f.left); err != nil {
			return err
		}
		h, err := readFrameHeader(f.src, f.buf[:])
		if err != nil {
			return err
		}
		f.left = h.length
		if h.opcode() == opClose {
			return f.discard(h.length)
		}
	}
}

// discard reads n bytes and keeps none. It allocates nothing: there may be a
// flood to be discarded.
func (f *frameReader) discard(n uint64) error {
	for n > 0 {
		k, err := f.src.Discard(int(min(n, 1<<20)))
		if err != nil {
			return err
		}
		n -= uint64(k)
	}
	return nil
}

// closeFrame is a server's Close with a reason, cut to what a frame takes.
func closeFrame(reason string) []byte {
	reason = fmt.Sprintf("%.120s", reason)
	b := []byte{finBit | opClose, byte(2 + len(reason))}
	return append(binary.BigEndian.AppendUint16(b, closePolicy), reason...)
}
