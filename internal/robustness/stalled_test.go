package robustness

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// stalled is a client that attaches, or tails, and then reads nothing more,
// with its connection as healthy as can be: the transport answers pings. It
// costs the server bounded memory and nobody else anything (P6).
type stalled struct {
	conn   *grpc.ClientConn
	cancel context.CancelFunc
}

// stall starts a stalled reader of a room, which is closed at the end of the
// test, or before; kind is "connect" or "tail". Its user is n's own, so that it
// shares no session or limit with anybody.
func stall(t testing.TB, address, kind, room string, n int) *stalled {
	t.Helper()
	s, err := newStalled(address, kind, room, n)
	if err != nil {
		t.Fatalf("a stalled reader cannot begin: %v", err)
	}
	t.Cleanup(s.close)
	return s
}

// newStalled is stall; the caller closes what it returns.
func newStalled(address, kind, room string, n int) (*stalled, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &stalled{conn: conn, cancel: cancel}
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", fmt.Sprintf("Bearer dev:stalled-%d", n))
	if err := s.begin(ctx, kind, room); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *stalled) begin(ctx context.Context, kind, room string) error {
	chat := reprisev1.NewChatServiceClient(s.conn)
	if _, err := chat.JoinRoom(ctx, &reprisev1.JoinRoomRequest{Room: room}, grpc.WaitForReady(true)); err != nil {
		return err
	}
	if kind == "tail" {
		_, err := chat.Tail(ctx, &reprisev1.TailRequest{Room: room, Follow: true})
		return err
	}
	stream, err := chat.Connect(ctx)
	if err != nil {
		return err
	}
	err = stream.Send(&reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_Open{Open: &reprisev1.OpenRequest{}}})
	if err != nil {
		return err
	}
	_, err = stream.Recv() // Welcome
	return err
}

// close ends it; it may be called more than once.
func (s *stalled) close() {
	s.cancel()
	s.conn.Close()
}
