package server_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

// badInputRaw is an encoded message, right or wrong.
type badInputRaw []byte

// badInputCodec sends badInputRaw as it is.
type badInputCodec struct{ encoding.CodecV2 }

func (c badInputCodec) Marshal(v any) (mem.BufferSlice, error) {
	if raw, ok := v.(badInputRaw); ok {
		return mem.BufferSlice{mem.SliceBuffer(raw)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// badInputNotUTF8 stands in a message for bytes of the same length that are
// not UTF-8, which no protobuf library would encode.
const badInputNotUTF8 = "@NOT-UTF-8@"

func badInputEncode(t *testing.T, m proto.Message) badInputRaw {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(b, []byte(badInputNotUTF8), []byte("\xff\xfe\xc0\x80\xed\xa0\x80\xf8\x88\x80\x80"))
}

// badInputWorld is a server over a real socket with what a stranger may not
// know, and streams that must not notice anything.
type badInputWorld struct {
	conn *grpc.ClientConn
	// Alice makes the mistakes. She is in "mine" and has streams. Bob has the
	// private room "theirs", and a session.
	alice, bob *badInputStream
	// latest is the newest position of "mine", sent to alice and not
	// acknowledged.
	latest *reprisev1.Position
}

func badInputStart(t *testing.T) *badInputWorld {
	t.Helper()
	w := badInputServe(t, server.Options{})
	w.populate(t)
	return w
}

func badInputServe(t *testing.T, o server.Options) *badInputWorld {
	t.Helper()
	o.Dir, o.NoSync, o.DiskReserve, o.Logger = t.TempDir(), true, -1, slog.New(slog.DiscardHandler)
	srv, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	var listeners [2]net.Listener
	for i := range listeners {
		if listeners[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listeners[0], listeners[1]) }()
	conn, err := grpc.NewClient(listeners[0].Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(badInputCodec{encoding.GetCodecV2("proto")})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(srv.Shutdown(ctx), <-served); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return &badInputWorld{conn: conn}
}

func (w *badInputWorld) populate(t *testing.T) {
	t.Helper()
	w.must(t, "alice", "CreateRoom", &reprisev1.CreateRoomRequest{Room: "mine", Members: []string{"bob"}})
	w.must(t, "bob", "CreateRoom", &reprisev1.CreateRoomRequest{Room: "theirs", Access: reprisev1.RoomAccess_ROOM_ACCESS_PRIVATE})
	w.must(t, "alice", "SendMessage", &reprisev1.SendMessageRequest{Room: "mine", Text: "hello"})
	w.alice, w.bob = w.open(t, "alice"), w.open(t, "bob")
	for w.latest == nil {
		if e := w.alice.next(t).GetEvents(); e != nil {
			last := e.GetEvents()[len(e.GetEvents())-1]
			w.latest = &reprisev1.Position{Room: "mine", Incarnation: e.GetIncarnation(), Offset: last.GetOffset()}
		}
	}
}

func badInputContext(t *testing.T, tokens ...string) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	for _, token := range tokens {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", token)
	}
	return ctx
}

// call makes a unary call and returns how it ended.
func (w *badInputWorld) call(t *testing.T, user, method string, raw badInputRaw, out proto.Message) error {
	t.Helper()
	return w.conn.Invoke(badInputContext(t, "Bearer dev:"+user), "/reprise.v1.ChatService/"+method, raw, out)
}

func (w *badInputWorld) must(t *testing.T, user, method string, m proto.Message) {
	t.Helper()
	if err := w.call(t, user, method, badInputEncode(t, m), new(emptypb.Empty)); err != nil {
		t.Fatalf("%s: %v", method, err)
	}
}

// badInputStream is a stream of any of the four kinds.
type badInputStream struct {
	grpc.ClientStream
	welcome *reprisev1.Welcome
}

// stream begins a stream with the frames or request given.
func (w *badInputWorld) stream(t *testing.T, ctx context.Context, method string, first ...badInputRaw) *badInputStream {
	t.Helper()
	desc := &grpc.StreamDesc{StreamName: method, ServerStreams: true, ClientStreams: method == "Connect"}
	s, err := w.conn.NewStream(ctx, desc, "/reprise.v1.ChatService/"+method)
	if err != nil {
		t.Fatal(err)
	}
	b := &badInputStream{ClientStream: s}
	for _, f := range first {
		b.send(t, f)
	}
	if method != "Connect" {
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// open opens a session over Connect that shows the newest event of each room.
func (w *badInputWorld) open(t *testing.T, user string) *badInputStream {
	t.Helper()
	first := badInputEncode(t, &reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_Open{Open: &reprisev1.OpenRequest{History: 1}}})
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer dev:"+user))
	t.Cleanup(cancel)
	s := w.stream(t, ctx, "Connect", first)
	if s.welcome = s.next(t).GetWelcome(); s.welcome == nil {
		t.Fatal("the first frame is no Welcome")
	}
	return s
}

func (s *badInputStream) send(t *testing.T, raw badInputRaw) {
	t.Helper()
	if err := s.SendMsg(raw); err != nil {
		t.Fatalf("sending: %v", err)
	}
}

func (s *badInputStream) next(t *testing.T) *reprisev1.ServerFrame {
	t.Helper()
	f := new(reprisev1.ServerFrame)
	if err := s.RecvMsg(f); err != nil {
		t.Fatalf("the stream has ended: %v", err)
	}
	return f
}

// answer returns the next Receipt or Fault.
func (s *badInputStream) answer(t *testing.T) *reprisev1.ServerFrame {
	t.Helper()
	for {
		if f := s.next(t); f.GetReceipt() != nil || f.GetFault() != nil {
			return f
		}
	}
}

// alive checks that the stream still carries frames both ways.
func (s *badInputStream) alive(t *testing.T) {
	t.Helper()
	s.send(t, badInputEncode(t, &reprisev1.ClientFrame{
		RequestId: "alive", Frame: &reprisev1.ClientFrame_Ack{Ack: &reprisev1.AckRequest{}},
	}))
	if f := s.answer(t); f.GetReceipt().GetRequestId() != "alive" || f.GetReceipt().GetAck() == nil {
		t.Fatalf("a good frame was answered with %v", f)
	}
}

// end reads up to the end of the stream.
func (s *badInputStream) end(t *testing.T) error {
	t.Helper()
	for {
		if err := s.RecvMsg(new(reprisev1.ServerFrame)); err != nil {
			return err
		}
	}
}

// snapshot is what is stored: rooms with their heads and numbers of members,
// sessions with their attach numbers.
func (w *badInputWorld) snapshot(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	add := func(user, method string, in, out proto.Message) {
		if err := w.call(t, user, method, badInputEncode(t, in), out); err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		all.WriteString(prototext.MarshalOptions{Multiline: true}.Format(out))
	}
	for _, user := range []string{"alice", "bob"} {
		add(user, "ListRooms", &reprisev1.ListRoomsRequest{}, &reprisev1.ListRoomsResponse{})
		add(user, "ListSessions", &reprisev1.ListSessionsRequest{}, &reprisev1.ListSessionsResponse{})
	}
	return strings.ReplaceAll(all.String(), "  ", " ") // prototext varies its spaces on purpose
}

// badInputWant is the refusal that a case expects.
type badInputWant struct {
	code   codes.Code
	reason string
	field  string // empty: not about a field
	says   string // part of the message: the bound, or what to do
}

func (want badInputWant) checkStatus(t *testing.T, prefix string, err error) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != want.code {
		t.Fatalf("code is %v, not %v: %s", s.Code(), want.code, s.Message())
	}
	var fields []*reprisev1.FieldViolation
	var reason, domain string
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason, domain = d.GetReason(), d.GetDomain()
		case *errdetails.BadRequest:
			for _, f := range d.GetFieldViolations() {
				fields = append(fields, &reprisev1.FieldViolation{Field: f.GetField(), Description: f.GetDescription()})
			}
		}
	}
	if domain != "reprise.chat" {
		t.Errorf("domain is %q", domain)
	}
	want.check(t, prefix, reason, s.Message(), fields)
}

func (want badInputWant) checkFault(t *testing.T, prefix string, f *reprisev1.ServerFrame, requestID string) {
	t.Helper()
	fault := f.GetFault()
	if fault == nil {
		t.Fatalf("not refused, but %v", f)
	}
	if codes.Code(fault.GetCode()) != want.code {
		t.Errorf("code is %v, not %v", codes.Code(fault.GetCode()), want.code)
	}
	if fault.GetRequestId() != requestID {
		t.Errorf("request_id is %q, not %q", fault.GetRequestId(), requestID)
	}
	want.check(t, prefix, fault.GetReason(), fault.GetMessage(), fault.GetFields())
}

func (want badInputWant) check(t *testing.T, prefix, reason, message string, fields []*reprisev1.FieldViolation) {
	t.Helper()
	if reason != want.reason {
		t.Errorf("reason is %q, not %q", reason, want.reason)
	}
	if !strings.Contains(message, want.says) {
		t.Errorf("the message %q does not say %q", message, want.says)
	}
	if want.field == "" {
		if len(fields) > 0 {
			t.Errorf("names fields: %v", fields)
		}
		return
	}
	field := prefix + want.field
	if !strings.HasPrefix(message, field+" ") {
		t.Errorf("the message %q does not begin with %s", message, field)
	}
	if len(fields) == 0 || fields[0].GetField() != field || !strings.Contains(fields[0].GetDescription(), want.says) {
		t.Errorf("the violations are %v, not first %s", fields, field)
	}
}
