package rpc

import (
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that Codec wraps
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// eventsFrame is a ServerFrame that is encoded already, in two pieces. Neither
// may be changed or reused: the transport reads them after Send has returned.
type eventsFrame struct{ header, elements []byte }

// codec passes encoded frames through and leaves the rest to the standard
// codec, so that unary calls, health and reflection work as ever.
//
// A message that the standard codec would not decode would end its call or
// stream with a bare INTERNAL. This one decodes what it can, so that the edge
// can answer like for any other bad input: strings that are not UTF-8 are left
// in place for validation to find, and a message over the limit is marked.
type codec struct {
	encoding.CodecV2
	maxMessage int
}

// Codec returns the codec that servers of this package need
// (grpc.ForceServerCodecV2), with the largest message it decodes, in bytes.
func Codec(maxMessage int) encoding.CodecV2 {
	return codec{encoding.GetCodecV2("proto"), maxMessage}
}

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*eventsFrame); ok {
		return mem.BufferSlice{mem.SliceBuffer(f.header), mem.SliceBuffer(f.elements)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	if n := data.Len(); n > c.maxMessage {
		proto.Reset(m)
		markOversize(m, n, data)
		return nil
	}
	err := c.CodecV2.Unmarshal(data, v)
	if err == nil {
		return nil
	}
	proto.Reset(m)
	if lenientErr := lenient(data.Materialize(), m.ProtoReflect(), 0); lenientErr != nil {
		return err
	}
	return nil
}

// oversizeField is an unknown field that stands for a message over the limit;
// its value is the size. No message has a field of that number, and a client
// that sends one only harms itself.
const oversizeField = protowire.MaxValidNumber

func markOversize(m proto.Message, size int, data mem.BufferSlice) {
	b := protowire.AppendTag(nil, oversizeField, protowire.VarintType)
	m.ProtoReflect().SetUnknown(protowire.AppendVarint(b, uint64(size)))
	// A frame's request_id comes first, so that a Fault can name it.
	fd := m.ProtoReflect().Descriptor().Fields().ByName("request_id")
	if fd == nil || len(data) == 0 {
		return
	}
	head := data[0].ReadOnlyData()
	num, typ, n := protowire.ConsumeTag(head)
	if n < 0 || num != fd.Number() || typ != protowire.BytesType {
		return
	}
	if id, k := protowire.ConsumeString(head[n:]); k > 0 {
		m.ProtoReflect().Set(fd, stringValue(id))
	}
}

// checkSize returns a refusal if m was over the limit.
func (s *Service) checkSize(m proto.Message) error {
	num, _, n := protowire.ConsumeTag(m.ProtoReflect().GetUnknown())
	if n < 0 || num != oversizeField {
		return nil
	}
	size, _ := protowire.ConsumeVarint(m.ProtoReflect().GetUnknown()[n:])
	return &refusal{
		code: codes.ResourceExhausted, reason: "FRAME_TOO_LARGE",
		message: fmt.Sprintf("the frame has %d bytes; at most %d are taken", size, s.opts.MaxFrame),
	}
}
