package rpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// stream makes an attach.Stream of a gRPC stream.
type stream struct{ grpc.ServerStream }

// Context implements attach.Stream.
func (s stream) Context() context.Context { return s.ServerStream.Context() }

// Send implements attach.Stream.
func (s stream) Send(f *reprisev1.ServerFrame) error { return s.SendMsg(f) }

// SendEncoded implements attach.Stream.
func (s stream) SendEncoded(header, elements, rest []byte) error {
	switch {
	case len(elements) == 0:
		return s.SendMsg(mem.BufferSlice{mem.SliceBuffer(header)})
	case len(rest) > 0:
		return s.SendMsg(mem.BufferSlice{mem.SliceBuffer(header), mem.SliceBuffer(elements), mem.SliceBuffer(rest)})
	}
	return s.SendMsg(newEventsFrame(header, elements))
}
