package rpc

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip"  // requests may come compressed
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that Codec wraps
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
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

// codec passes encoded frames through and leaves the rest of what is sent to
// the standard codec, so that unary calls, health and reflection work as ever.
// What is received gets here only if no reader is before it.
type codec struct {
	encoding.CodecV2
	plans *plans
}

// newCodec returns the codec that servers of this package need
// (grpc.ForceServerCodecV2).
func newCodec(p *plans) encoding.CodecV2 { return codec{encoding.GetCodecV2("proto"), p} }

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
	b := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer b.Free()
	if _, err := c.plans.plan(m.ProtoReflect().Descriptor()).scan(b.ReadOnlyData(), 0); err != nil {
		return err
	}
	return decode(b.ReadOnlyData(), m)
}

// decode decodes what a scan has found to be within its bounds. What the
// contract does not know is left out, so that it costs nothing. Strings that
// are not UTF-8, which the standard decoder refuses, are left in place for
// validation to find and name.
func decode(b []byte, m proto.Message) error {
	if (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m) == nil {
		return nil
	}
	proto.Reset(m)
	return lenient(b, m.ProtoReflect(), 0)
}
