package rpc

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

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

var errNoEnder = errors.New("this version of grpc-go has no way to end a stream from outside of its handler")

// ender returns a function that ends the stream of a handler from outside of it,
// with a status of our choice, and so has its Recv return. Only the first call
// counts, and none after the handler has returned.
//
// Returning from the handler is grpc-go's only documented way, and it would take
// a second goroutine for each stream to wait for both Recv and the end: a quarter
// of what an idle connection would cost. Cancelling the context from a tap handle
// ends Recv too, but then it is grpc-go that writes the status.
func ender(ctx context.Context) (func(error), error) {
	s, ok := grpc.ServerTransportStreamFromContext(ctx).(interface{ WriteStatus(*status.Status) error })
	if !ok {
		return nil, errNoEnder
	}
	return func(err error) {
		_ = s.WriteStatus(status.Convert(err)) // fails if the client has gone
	}, nil
}
