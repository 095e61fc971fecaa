package rpc

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// TestNoFirstFrame opens a stream over a real socket and says nothing.
func TestNoFirstFrame(t *testing.T) {
	s := edge(20 * time.Millisecond)
	server := grpc.NewServer(s.ServerOptions()...)
	s.Register(server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer dev:alice"), 10*time.Second)
	defer cancel()
	stream, err := reprisev1.NewChatServiceClient(conn).Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	if got := status.Convert(err); got.Code() != codes.FailedPrecondition ||
		got.Message() != "no frame came within 20ms; the first frame must be open or resume" {
		t.Errorf("the stream has ended with %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	server.Stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// frames is a Connect stream that a client has sent these frames on.
type frames struct {
	grpc.ServerStream
	ctx  context.Context //nolint:containedctx // it stands for a gRPC stream
	sent []*reprisev1.ClientFrame
}

func (f *frames) Context() context.Context { return f.ctx }

func (f *frames) Send(*reprisev1.ServerFrame) error { return nil }

func (f *frames) Recv() (*reprisev1.ClientFrame, error) {
	if len(f.sent) == 0 {
		return nil, io.EOF
	}
	next := f.sent[0]
	f.sent = f.sent[1:]
	return next, nil
}

// TestPanicOfAFrame: a bug that a frame brings to light ends its stream with
// INTERNAL, and not the process.
func TestPanicOfAFrame(t *testing.T) {
	s := edge(0)
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer dev:alice"))
	in := &frames{ctx: ctx, sent: []*reprisev1.ClientFrame{{}}}
	err := guard{s, nil}.stream(s.method("reprise.v1.ChatService", "Connect", true), in, func(grpc.ServerStream) error {
		return s.receive(in, nil) // the bug: there is no attachment
	})
	if status.Code(err) != codes.Internal {
		t.Fatalf("the client is told %v", err)
	}
}
