package server_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
	"github.com/reprise-chat/reprise/server/internal/gateway/webtest"
)

// TestTailsByUser: a user has so many tails open, and one that ends makes room.
func TestTailsByUser(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.Limits.TailsPerUser = 2 })
	for _, user := range []string{"alice", "bob"} {
		n.join(user, "lobby")
		n.say(user, "lobby", "hello")
	}
	tail := func(user string) (context.CancelFunc, error) {
		ctx, cancel := context.WithCancel(as(t, user))
		s, err := n.Tail(ctx, &reprisev1.TailRequest{Room: "lobby", Follow: true})
		if err == nil {
			_, err = s.Recv()
		}
		return cancel, err
	}
	var cancels []context.CancelFunc
	for range 2 {
		cancel, err := tail("alice")
		if err != nil {
			t.Fatal(err)
		}
		cancels = append(cancels, cancel)
	}
	cancel, err := tail("alice")
	cancel()
	refused(t, err, codes.ResourceExhausted, "TOO_MANY_TAILS")
	cancel, err = tail("bob")
	defer cancel()
	if err != nil {
		t.Errorf("another user: %v", err)
	}
	cancels[0]()
	within(t, "a tail in place of one that has ended", func() {
		for {
			cancel, err := tail("alice")
			defer cancel()
			if err == nil {
				return
			}
			refused(t, err, codes.ResourceExhausted, "TOO_MANY_TAILS")
		}
	})
	cancels[1]()
}

// someTokens takes "open sesame", as a verifier of real tokens would.
type someTokens struct{}

func (someTokens) Verify(_ context.Context, token string) (server.Identity, error) {
	if token != "sesame" {
		return server.Identity{}, server.ErrTokenInvalid
	}
	return server.Identity{User: "alice"}, nil
}

// TestReflectionForStrangers: reflection answers everybody where everybody may
// come in anyway, and else only those with a token. Channelz answers nobody.
func TestReflectionForStrangers(t *testing.T) {
	list := func(n *node, ctx context.Context) error {
		s, err := grpc_reflection_v1.NewServerReflectionClient(n.conn).ServerReflectionInfo(ctx)
		if err != nil {
			return err
		}
		_ = s.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}})
		answer, err := s.Recv()
		if err == nil && len(answer.GetListServicesResponse().GetService()) < 3 {
			t.Errorf("the services are %v", answer)
		}
		return err
	}
	reflecting := func(o *server.Options) { o.Reflection = true }
	open := serve(t, reflecting)
	if err := list(open, t.Context()); err != nil {
		t.Errorf("with the development identity: %v", err)
	}
	closed := serve(t, reflecting, func(o *server.Options) { o.Verifier = someTokens{} })
	refused(t, list(closed, t.Context()), codes.Unauthenticated, "TOKEN_MISSING")
	refused(t, list(closed, metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer other")), codes.Unauthenticated, "TOKEN_INVALID")
	if err := list(closed, metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer sesame")); err != nil {
		t.Errorf("with a token: %v", err)
	}
	if _, err := grpc_health_v1.NewHealthClient(closed.conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Errorf("health: %v", err)
	}
	for _, n := range []*node{open, closed} {
		err := n.conn.Invoke(as(t, "alice"), "/grpc.channelz.v1.Channelz/GetServers", &reprisev1.Bye{}, &reprisev1.Bye{})
		refused(t, err, codes.Unimplemented, "METHOD_UNKNOWN")
	}
}

// TestStreamsOfStrangers: those who need no token have a bounded number of
// streams, and ending one makes room.
func TestStreamsOfStrangers(t *testing.T) {
	n := serve(t)
	health := grpc_health_v1.NewHealthClient(n.conn)
	watch := func() (context.CancelFunc, error) {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := health.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err == nil {
			_, err = s.Recv()
		}
		return cancel, err
	}
	first, err := watch()
	if err != nil {
		t.Fatal(err)
	}
	for range 31 {
		cancel, err := watch()
		defer cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
	cancel, err := watch()
	cancel()
	refused(t, err, codes.ResourceExhausted, "TOO_MANY_STREAMS")
	n.join("alice", "lobby") // calls with a token are something else
	first()
	within(t, "a stream in place of one that has ended", func() {
		for {
			cancel, err := watch()
			defer cancel()
			if err == nil {
				return
			}
		}
	})
}

// TestStrangersAreNotRead: without a token nothing of a request is read, on
// either port.
func TestStrangersAreNotRead(t *testing.T) {
	n := serve(t)
	bomb := badInputRaw(strings.Repeat("\x12\x00", 500_000))
	err := n.conn.Invoke(t.Context(), reprisev1.ChatService_Ack_FullMethodName, bomb, &reprisev1.AckResponse{}, grpc.ForceCodecV2(badInputCodec{encoding.GetCodecV2("proto")}))
	refused(t, err, codes.Unauthenticated, "TOKEN_MISSING")
	f, err := webtest.PostBody(t.Context(), http.DefaultClient, n.web, reprisev1.ChatService_Ack_FullMethodName, webtest.Options{},
		strings.NewReader(string(webtest.PrefixedBytes(bomb))))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	refused(t, f.Recv(&reprisev1.AckResponse{}), codes.Unauthenticated, "TOKEN_MISSING")
}

// TestGzip: requests may be compressed, within the limits of what they unpack
// to, on either port; answers are not.
func TestGzip(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	zip := grpc.UseCompressor(gzip.Name)
	text := strings.Repeat("x", 60<<10)
	out, err := n.SendMessage(as(t, "alice"), &reprisev1.SendMessageRequest{Room: "lobby", Text: text}, zip)
	if err != nil {
		t.Fatal(err)
	}
	if events := n.log("alice", "lobby"); events[len(events)-1].GetMessage().GetText() != text || events[len(events)-1].GetOffset() != out.GetOffset() {
		t.Error("what was sent compressed is not what is stored")
	}
	for size, reason := range map[int]string{70 << 10: "INVALID_FIELD", 1 << 20: "FRAME_TOO_LARGE", 100 << 20: "FRAME_TOO_LARGE"} {
		_, err = n.SendMessage(as(t, "alice"), &reprisev1.SendMessageRequest{Room: "lobby", Text: strings.Repeat("x", size)}, zip)
		if got := reasonOf(err); got != reason {
			t.Errorf("%d bytes, compressed: %v, want %s", size, err, reason)
		}
	}
	_, err = n.Ack(as(t, "alice"), &reprisev1.AckRequest{Positions: make([]*reprisev1.Position, 1001)}, zip)
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("too many positions, compressed: %v", err)
	}
	s, err := n.Connect(as(t, "alice"), zip)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_Open{Open: &reprisev1.OpenRequest{History: 1}}}); err != nil {
		t.Fatal(err)
	}
	if f, err := s.Recv(); err != nil || f.GetWelcome() == nil {
		t.Fatalf("over a compressed stream: %v, %v", f, err)
	}
	if md, err := s.Header(); err != nil || len(md.Get("grpc-encoding")) > 0 && md.Get("grpc-encoding")[0] != "identity" {
		t.Errorf("answers are compressed: %v, %v", md, err)
	}
}
