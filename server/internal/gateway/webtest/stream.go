package webtest

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strconv"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// ErrNoTrailers is what a response ends with that was cut.
var ErrNoTrailers = errors.New("webtest: the response ended without trailers")

// stream reads grpc-web frames from a response.
type stream struct {
	r io.Reader
	// Header is what came before the first message.
	Header http.Header
	// Trailer is what came after the last one.
	Trailer http.Header
}

// recv reads the next message. At the end it returns io.EOF for status OK, and
// the status as an error otherwise.
func (s *stream) recv(m proto.Message) error {
	for {
		flag, b, err := s.frame()
		if err != nil {
			return err
		}
		if flag&0x80 == 0 {
			return proto.Unmarshal(b, m)
		}
		h, err := parseBlock(b)
		if err != nil {
			return err
		}
		if h.Get("Grpc-Status") == "" { // websocket: headers come in a frame
			s.Header = h
			continue
		}
		s.Trailer = h
		return StatusError(h)
	}
}

func (s *stream) frame() (flag byte, b []byte, err error) {
	var prefix [5]byte
	if _, err := io.ReadFull(s.r, prefix[:]); err != nil {
		if err == io.EOF {
			err = ErrNoTrailers
		}
		return 0, nil, err
	}
	b = make([]byte, binary.BigEndian.Uint32(prefix[1:]))
	if _, err := io.ReadFull(s.r, b); err != nil {
		return 0, nil, fmt.Errorf("webtest: inside a frame: %w", err)
	}
	return prefix[0], b, nil
}

func parseBlock(b []byte) (http.Header, error) {
	h, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(append(b, "\r\n"...)))).ReadMIMEHeader()
	return http.Header(h), err
}

// StatusError turns grpc-status headers into an error; OK is io.EOF.
func StatusError(h http.Header) error {
	code, err := strconv.Atoi(h.Get("Grpc-Status"))
	if err != nil {
		return fmt.Errorf("webtest: grpc-status: %w", err)
	}
	if code == 0 {
		return io.EOF
	}
	if d := h.Get("Grpc-Status-Details-Bin"); d != "" {
		var p statuspb.Status
		if b, err := base64.RawStdEncoding.DecodeString(d); err == nil && proto.Unmarshal(b, &p) == nil {
			return status.ErrorProto(&p)
		}
	}
	return status.Error(codes.Code(code), h.Get("Grpc-Message"))
}

// Prefixed returns m as a gRPC message with its prefix.
func Prefixed(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // a test's own message
	}
	return PrefixedBytes(b)
}

// PrefixedBytes returns b as a gRPC message with its prefix.
func PrefixedBytes(b []byte) []byte {
	p := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b)))
	return append(p, b...)
}
