package rpc

import (
	"context"

	"google.golang.org/grpc"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// stream makes an attach.Stream of a gRPC stream.
type stream struct{ grpc.ServerStream }

// Context implements attach.Stream.
func (s stream) Context() context.Context { return s.ServerStream.Context() }

// Send implements attach.Stream.
func (s stream) Send(f *reprisev1.ServerFrame) error { return s.SendMsg(f) }

// SendEvents implements attach.Stream.
func (s stream) SendEvents(header, elements []byte) error {
	return s.SendMsg(newEventsFrame(header, elements))
}
