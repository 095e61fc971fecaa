package rpc

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that Codec wraps
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/name"
	"github.com/reprise-chat/reprise/server/internal/reason"
)

// eventsFrame is a ServerFrame that is encoded already, in two pieces. Neither
// may be changed or reused: the transport reads them after Send has returned.
// It is one object with all that the transport wants of it, because there is
// one for each delivery. A frame in more pieces is a plain mem.BufferSlice.
type eventsFrame struct {
	header, elements mem.SliceBuffer
	pieces           [2]mem.Buffer
}

func newEventsFrame(header, elements []byte) *eventsFrame {
	f := &eventsFrame{header: header, elements: elements}
	f.pieces = [2]mem.Buffer{&f.header, &f.elements}
	return f
}

// codec passes encoded frames through and leaves the rest to the standard
// codec, so that unary calls, health and reflection work as ever.
//
// A message that the standard codec would not decode would end its call or
// stream with a bare INTERNAL. This one never fails on input, so that the edge
// can answer like for any other bad input: strings that are not UTF-8 are left
// in place for validation to find, and what is over the limit or no message at
// all is marked.
type codec struct {
	encoding.CodecV2
	maxMessage, maxResume int
}

// Codec returns the codec that servers of this package need
// (grpc.ForceServerCodecV2), with the largest message it decodes and the
// largest resume, in bytes.
func Codec(maxMessage, maxResume int) encoding.CodecV2 {
	return codec{encoding.GetCodecV2("proto"), maxMessage, maxResume}
}

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	switch f := v.(type) {
	case *eventsFrame:
		return f.pieces[:], nil
	case mem.BufferSlice:
		return f, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	if n := data.Len(); n > c.maxMessage && (n > c.maxResume || !isResume(m, data)) {
		mark(m, uint64(n), data)
		return nil
	}
	if c.CodecV2.Unmarshal(data, v) == nil {
		return nil
	}
	proto.Reset(m)
	if lenient(data.Materialize(), m.ProtoReflect(), 0) != nil {
		mark(m, malformed, data)
	}
	return nil
}

// markField is an unknown field that stands for a message that was not
// decoded; its value is the size of one over the limit, or malformed. No
// message has a field of that number, and a client that sends one only harms
// itself.
const (
	markField = protowire.MaxValidNumber
	malformed = 0
)

// isResume reports whether data is a resume, or a frame that begins with one.
func isResume(m proto.Message, data mem.BufferSlice) bool {
	if _, request := m.(*reprisev1.ResumeRequest); request {
		return true
	}
	if _, frame := m.(*reprisev1.ClientFrame); !frame {
		return false
	}
	const requestID, resume = 1, 3
	head := make([]byte, min(idBytes+1, data.Len()))
	data.CopyTo(head)
	num, typ, n := protowire.ConsumeTag(head)
	if num == requestID && typ == protowire.BytesType {
		if _, k := protowire.ConsumeBytes(head[n:]); k > 0 {
			num, _, _ = protowire.ConsumeTag(head[n+k:])
		}
	}
	return num == resume
}

// idBytes is how much of a message may hold the request_id it begins with: a
// tag, a length and the id.
const idBytes = 2 + name.MaxRequest

// mark empties m and has checkDecoded refuse it.
func mark(m proto.Message, value uint64, data mem.BufferSlice) {
	proto.Reset(m)
	b := protowire.AppendTag(nil, markField, protowire.VarintType)
	m.ProtoReflect().SetUnknown(protowire.AppendVarint(b, value))
	// A frame's request_id comes first, so that a Fault can name it.
	fd := m.ProtoReflect().Descriptor().Fields().ByName("request_id")
	if fd == nil {
		return
	}
	head := make([]byte, min(idBytes, data.Len()))
	data.CopyTo(head)
	num, typ, n := protowire.ConsumeTag(head)
	if n < 0 || num != fd.Number() || typ != protowire.BytesType {
		return
	}
	if id, k := protowire.ConsumeString(head[n:]); k > 0 {
		m.ProtoReflect().Set(fd, protoreflect.ValueOfString(id))
	}
}

// checkDecoded returns a refusal if m is marked.
func (s *Service) checkDecoded(m proto.Message) error {
	num, _, n := protowire.ConsumeTag(m.ProtoReflect().GetUnknown())
	if n < 0 || num != markField {
		return nil
	}
	size, _ := protowire.ConsumeVarint(m.ProtoReflect().GetUnknown()[n:])
	if size == malformed {
		return &refusal{
			reason:  reason.Malformed,
			message: fmt.Sprintf("the bytes are not an encoded %s: encode it with the contract of this server", m.ProtoReflect().Descriptor().FullName()),
		}
	}
	most := s.opts.MaxFrame
	if _, resume := m.(*reprisev1.ResumeRequest); resume {
		most = s.opts.MaxResume()
	}
	return &refusal{
		reason:  reason.FrameTooLarge,
		message: fmt.Sprintf("the frame has %d bytes; at most %d are taken: send less at once", size, most),
	}
}
