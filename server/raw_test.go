package server_test

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// frame is a server frame and the bytes it came in.
type frame struct {
	*reprisev1.ServerFrame
	raw []byte
}

// rawCodec decodes frames and keeps their bytes.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, err := proto.Marshal(v.(proto.Message))
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	f := v.(*frame)
	f.raw, f.ServerFrame = data.Materialize(), new(reprisev1.ServerFrame)
	return proto.Unmarshal(f.raw, f.ServerFrame)
}

// rawEvents returns the encoded Event messages of an Events frame.
func rawEvents(raw []byte) (out [][]byte) {
	for _, events := range fields(raw, 6) {
		out = append(out, fields(events, 3)...)
	}
	return out
}

// fields returns the values of a length-delimited field.
func fields(b []byte, want protowire.Number) (out [][]byte) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		m := protowire.ConsumeFieldValue(num, typ, b[n:])
		if n < 0 || m < 0 {
			return nil
		}
		if num == want && typ == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(b[n:])
			out = append(out, v)
		}
		b = b[n+m:]
	}
	return out
}
