package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/textproto"
)

var (
	errHeaderBlock = errors.New("gateway: the websocket's header block is too large")
	errNotBinary   = errors.New("gateway: a websocket begins with a binary message")
	errNotBlock    = errors.New("gateway: the websocket's header block is not lines of name: value")
)

// readHeaderBlock reads a websocket to the end of its first message, which
// has to be a header block that the wrapper accepts, and returns everything
// read: at most bound bytes. A Close ends it too; the library answers that.
func readHeaderBlock(r io.Reader, bound int) ([]byte, error) {
	var raw bytes.Buffer
	r = io.TeeReader(io.LimitReader(r, int64(bound)), &raw)
	var block []byte
	var buf [14]byte
	want := byte(opBinary)
	for {
		h, err := readFrameHeader(r, buf[:])
		if err != nil {
			return nil, boundOr(err, raw.Len() >= bound)
		}
		if h.length > uint64(bound-raw.Len()) {
			return nil, errHeaderBlock
		}
		payload := make([]byte, h.length)
		if _, err := io.ReadFull(r, payload); err != nil {
			return nil, err
		}
		switch {
		case h.opcode() == opClose:
			return raw.Bytes(), nil
		case h.control():
			continue
		case h.opcode() != want:
			return nil, errNotBinary
		}
		want = opContinuation
		for i := range payload {
			payload[i] ^= h.mask()[i%4]
		}
		block = append(block, payload...)
		if h.fin() {
			return raw.Bytes(), checkBlock(block)
		}
	}
}

// boundOr names the bound as the reason if it is: LimitReader only ends.
func boundOr(err error, reached bool) error {
	if reached {
		return errHeaderBlock
	}
	return err
}

// checkBlock parses the block as the wrapper will.
func checkBlock(block []byte) error {
	lines := bufio.NewReader(bytes.NewReader(append(block, "\r\n"...)))
	if _, err := textproto.NewReader(lines).ReadMIMEHeader(); err != nil {
		return errNotBlock
	}
	return nil
}
