package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
	"github.com/reprise-chat/reprise/server/internal/gateway/webtest"
	"github.com/reprise-chat/reprise/server/internal/reason"
)

// endCall makes one call, with messages as they are, and returns how it ended.
type endCall func(t *testing.T, method string, md map[string]string, timeout time.Duration, messages ...badInputRaw) error

// endEdges are the ways in which a client can reach a server.
func endEdges(t *testing.T, p *proxied) map[string]endCall {
	t.Helper()
	conn, err := grpc.NewClient(p.native, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(badInputCodec{encoding.GetCodecV2("proto")})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return map[string]endCall{
		"native": func(t *testing.T, method string, md map[string]string, timeout time.Duration, messages ...badInputRaw) error {
			return endNative(t, conn, method, md, timeout, messages)
		},
		"fetch": func(t *testing.T, method string, md map[string]string, timeout time.Duration, messages ...badInputRaw) error {
			var body bytes.Buffer
			for _, m := range messages {
				body.Write(webtest.PrefixedBytes(m))
			}
			f, err := webtest.PostBody(badInputContext(t), http.DefaultClient, "http://"+p.browser, method, endOptions(md, timeout), &body)
			if err != nil {
				return err
			}
			defer f.Close()
			return drained(f.Recv)
		},
		"websocket": func(t *testing.T, method string, md map[string]string, timeout time.Duration, messages ...badInputRaw) error {
			w, err := webtest.DialWebsocket(badInputContext(t), "http://"+p.browser, method, endOptions(md, timeout))
			if err != nil {
				return err
			}
			defer w.Close()
			for _, m := range messages {
				if w.SendData(webtest.PrefixedBytes(m)) != nil {
					break // the status says why
				}
			}
			if timeout == 0 {
				_ = w.CloseSend()
			}
			return drained(w.Recv)
		},
	}
}

func endNative(t *testing.T, conn *grpc.ClientConn, method string, md map[string]string, timeout time.Duration, messages []badInputRaw) error {
	t.Helper()
	ctx := badInputContext(t)
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	var options []grpc.CallOption
	for name, value := range md {
		if name == "content-type" {
			options = append(options, grpc.CallContentSubtype(strings.TrimPrefix(value, "application/grpc-web+")))
			continue
		}
		ctx = metadata.AppendToOutgoingContext(ctx, name, value)
	}
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method, options...)
	if err != nil {
		return err
	}
	for _, m := range messages {
		if s.SendMsg(m) != nil {
			break
		}
	}
	_ = s.CloseSend()
	for {
		if err := s.RecvMsg(new(emptypb.Empty)); err != nil {
			return err
		}
	}
}

func endOptions(md map[string]string, timeout time.Duration) webtest.Options {
	h := http.Header{}
	for name, value := range md {
		h.Set(name, value)
	}
	if timeout > 0 {
		h.Set("Grpc-Timeout", fmt.Sprint(timeout.Milliseconds(), "m"))
	}
	return webtest.Options{Metadata: h}
}

// drained reads a call to its end.
func drained(recv func(proto.Message) error) error {
	for {
		if err := recv(new(emptypb.Empty)); err != nil {
			return err
		}
	}
}

// TestEveryEndHasAReason walks the ways in which a call can end with an error,
// on every edge, and holds what docs/protocol.md promises: ErrorInfo always, and
// RetryInfo exactly with what waiting cures. What the gateway alone does is
// walked in its own package.
func TestEveryEndHasAReason(t *testing.T) {
	p := &proxied{dir: t.TempDir()}
	p.serve(t, server.Options{
		Heartbeat: 50 * time.Millisecond,
		Limits:    server.Limits{RoomsPerUser: 1, UserPublishes: 0.001, SessionsPerUser: 1},
	})
	const chat = "/reprise.v1.ChatService/"
	alice := func(more ...string) map[string]string {
		md := map[string]string{"authorization": "Bearer dev:alice"}
		for i := 0; i < len(more); i += 2 {
			md[more[i]] = more[i+1]
		}
		return md
	}
	open := badInputEncode(t, &reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_Open{Open: &reprisev1.OpenRequest{Ephemeral: true}}})
	ack := badInputEncode(t, &reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_Ack{Ack: &reprisev1.AckRequest{}}})
	get := func(room string) badInputRaw { return badInputEncode(t, &reprisev1.GetRoomRequest{Room: room}) }
	join := func(room string) badInputRaw { return badInputEncode(t, &reprisev1.JoinRoomRequest{Room: room}) }
	huge := badInputEncode(t, &reprisev1.SendMessageRequest{Room: "r", Text: strings.Repeat("x", 1<<20)})
	vast := badInputEncode(t, &reprisev1.SendMessageRequest{Room: "r", Text: strings.Repeat("x", 6<<20)})

	edges := endEdges(t, p)
	// One room, and a burst that is used up.
	if err := edges["native"](t, chat+"JoinRoom", alice(), 0, join("mine")); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	send := badInputEncode(t, &reprisev1.SendMessageRequest{Room: "mine", Text: "x"})
	for i := 0; endReason(edges["native"](t, chat+"SendMessage", alice(), 0, send)) != "RATE_LIMITED"; i++ {
		if i == 100 {
			t.Fatal("no rate")
		}
	}
	for _, tt := range []struct {
		name, method string
		md           map[string]string
		timeout      time.Duration
		messages     []badInputRaw
		want         *reason.Reason
	}{
		{"no token", "GetRoom", nil, 0, []badInputRaw{get("mine")}, reason.TokenMissing},
		{"no token, stream", "Connect", nil, 0, []badInputRaw{open}, reason.TokenMissing},
		{"bad token", "GetRoom", map[string]string{"authorization": "Basic x"}, 0, []badInputRaw{get("mine")}, reason.TokenInvalid},
		{"bad field", "GetRoom", alice(), 0, []badInputRaw{get("a\nb")}, reason.InvalidField},
		{"no message", "GetRoom", alice(), 0, []badInputRaw{[]byte("\xff\xff\xff")}, reason.Malformed},
		{"json", "GetRoom", alice("content-type", "application/grpc-web+json"), 0, []badInputRaw{get("mine")}, reason.ContentType},
		{"json, stream", "Connect", alice("content-type", "application/grpc-web+json"), 0, []badInputRaw{open}, reason.ContentType},
		{"too large", "SendMessage", alice(), 0, []badInputRaw{huge}, reason.FrameTooLarge},
		{"far too large", "SendMessage", alice(), 0, []badInputRaw{vast}, reason.FrameTooLarge},
		{"unknown method", "Nothing", alice(), 0, []badInputRaw{get("mine")}, reason.MethodUnknown},
		{"unknown service", "/reprise.v9.ChatService/GetRoom", alice(), 0, []badInputRaw{get("mine")}, reason.MethodUnknown},
		{"no request", "GetRoom", alice(), 0, nil, reason.Cardinality},
		{"no request of a stream", "Open", alice(), 0, nil, reason.Cardinality},
		{"two requests", "GetRoom", alice(), 0, []badInputRaw{get("mine"), get("mine")}, reason.Cardinality},
		{"no room", "GetRoom", alice(), 0, []badInputRaw{get("nowhere")}, reason.RoomNotFound},
		{"one room too many", "JoinRoom", alice(), 0, []badInputRaw{join("another")}, reason.TooManyRooms},
		{"too fast", "SendMessage", alice(), 0, []badInputRaw{send}, reason.RateLimited},
		{"no session", "EndSession", alice(), 0, []badInputRaw{badInputEncode(t, &reprisev1.EndSessionRequest{SessionId: "s_unknown"})}, reason.SessionNotFound},
		{"first frame", "Connect", alice(), 0, []badInputRaw{ack}, reason.FirstFrame},
		{"no frame", "Connect", alice(), 0, nil, reason.FirstFrame},
		{"deadline", "Connect", alice(), 700 * time.Millisecond, []badInputRaw{open}, reason.Deadline},
		{"deadline of a stream of the server's", "Open", alice(), 700 * time.Millisecond,
			[]badInputRaw{badInputEncode(t, &reprisev1.OpenRequest{Ephemeral: true})}, reason.Deadline},
	} {
		for edge, call := range edges {
			t.Run(tt.name+"/"+edge, func(t *testing.T) {
				method := tt.method
				if !strings.HasPrefix(method, "/") {
					method = chat + method
				}
				if tt.want == reason.Deadline && (edge == "websocket" && tt.method == "Open") {
					t.Skip("a websocket's request without an end is no request yet")
				}
				err := call(t, method, tt.md, tt.timeout, tt.messages...)
				if tt.want == reason.Deadline && edge == "native" {
					// The exception: the transport resets the stream, and the
					// client's clock says so.
					if status.Code(err) != codes.DeadlineExceeded {
						t.Errorf("ended with %v", err)
					}
					return
				}
				endCheck(t, err, tt.want)
			})
		}
	}
}

func endReason(err error) string { return proxiedReason(err) }

func endCheck(t *testing.T, err error, want *reason.Reason) {
	t.Helper()
	if got := status.Code(err); err == nil || got != want.Code() || endReason(err) != want.Name() {
		t.Errorf("ended with %v (%s), want %s", err, endReason(err), want.Name())
	}
	retries := false
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			retries = r.GetRetryDelay().AsDuration() > 0
		}
	}
	if retries != want.Retries() {
		t.Errorf("RetryInfo: %v, want %v", retries, want.Retries())
	}
}
