package reprise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// fake is a server that does what a test tells it, frame by frame. It lives in
// a synctest bubble, over in-memory connections.
type fake struct {
	reprisev1.UnimplementedChatServiceServer
	t       *testing.T
	streams chan *fakeStream

	sendMessage func(context.Context, *reprisev1.SendMessageRequest) (*reprisev1.SendMessageResponse, error)
	joinRoom    func(context.Context, *reprisev1.JoinRoomRequest) (*reprisev1.JoinRoomResponse, error)
	leaveRoom   func(context.Context, *reprisev1.LeaveRoomRequest) (*reprisev1.LeaveRoomResponse, error)
	invite      func(context.Context, *reprisev1.InviteMemberRequest) (*reprisev1.InviteMemberResponse, error)
	createRoom  func(context.Context, *reprisev1.CreateRoomRequest) (*reprisev1.CreateRoomResponse, error)
	listEvents  func(context.Context, *reprisev1.ListEventsRequest) (*reprisev1.ListEventsResponse, error)
	listRooms   func(context.Context, *reprisev1.ListRoomsRequest) (*reprisev1.ListRoomsResponse, error)
	tail        func(*reprisev1.TailRequest, grpc.ServerStreamingServer[reprisev1.ServerFrame]) error

	mu        sync.Mutex
	listeners map[string]*bufconn.Listener
	servers   map[string]*grpc.Server
	conns     []net.Conn
	dials     []string
	tokens    []string
}

// newFake starts servers under the given names.
func newFake(t *testing.T, names ...string) *fake {
	f := &fake{
		t: t, streams: make(chan *fakeStream, 64),
		listeners: map[string]*bufconn.Listener{}, servers: map[string]*grpc.Server{},
	}
	for _, name := range names {
		f.start(name)
	}
	t.Cleanup(func() {
		for _, s := range f.servers {
			s.Stop()
		}
	})
	return f
}

func (f *fake) start(name string) {
	l := bufconn.Listen(64 << 10)
	s := grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
		MinTime: 5 * time.Second, PermitWithoutStream: true, // as the real one
	}))
	reprisev1.RegisterChatServiceServer(s, f)
	go s.Serve(l)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listeners[name], f.servers[name] = l, s
}

// stop ends a server; connections to it are refused from now on.
func (f *fake) stop(name string) {
	f.mu.Lock()
	s := f.servers[name]
	delete(f.servers, name)
	delete(f.listeners, name)
	f.mu.Unlock()
	s.Stop()
}

// cut breaks every connection, as a network does.
func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.Close()
	}
	f.conns = nil
}

func (f *fake) dial(ctx context.Context, name string) (net.Conn, error) {
	f.mu.Lock()
	f.dials = append(f.dials, name)
	l := f.listeners[name]
	f.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	c, err := l.DialContext(ctx)
	if err == nil {
		f.mu.Lock()
		f.conns = append(f.conns, c)
		f.mu.Unlock()
	}
	return c, err
}

// config is for a client of the servers of the given names.
func (f *fake) config(names ...string) Config {
	var cfg Config
	for _, name := range names {
		cfg.Addresses = append(cfg.Addresses, "passthrough:///"+name)
	}
	cfg.Insecure, cfg.Logger = true, slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(f.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	cfg.DialOptions = []grpc.DialOption{grpc.WithContextDialer(f.dial)}
	return cfg
}

func (f *fake) client(cfg Config) *Client {
	f.t.Helper()
	c, err := New(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	return c
}

func (f *fake) note(ctx context.Context) {
	md, _ := metadata.FromIncomingContext(ctx)
	f.mu.Lock()
	f.tokens = append(f.tokens, strings.Join(md.Get("authorization"), ","))
	f.mu.Unlock()
}

// fakeStream is one Connect stream, played by the test.
type fakeStream struct {
	t     *testing.T
	first *reprisev1.ClientFrame
	rpc   grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]
	in    chan *reprisev1.ClientFrame
	out   chan error    // what the handler returns
	gone  chan struct{} // closed when the client has gone
}

func (f *fake) Connect(rpc grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error {
	f.note(rpc.Context())
	first, err := rpc.Recv()
	if err != nil {
		return err
	}
	s := &fakeStream{
		t: f.t, first: first, rpc: rpc,
		in: make(chan *reprisev1.ClientFrame, 1024), out: make(chan error, 1), gone: make(chan struct{}),
	}
	f.streams <- s
	go func() {
		for {
			frame, err := rpc.Recv()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				close(s.gone)
				return
			}
			s.in <- frame
		}
	}()
	select {
	case err := <-s.out:
		return err
	case <-rpc.Context().Done():
		return rpc.Context().Err()
	}
}

func (f *fake) SendMessage(ctx context.Context, r *reprisev1.SendMessageRequest) (*reprisev1.SendMessageResponse, error) {
	f.note(ctx)
	if f.sendMessage == nil {
		return nil, status.Error(codes.Unimplemented, "the test does not expect a call")
	}
	return f.sendMessage(ctx, r)
}

func (f *fake) JoinRoom(ctx context.Context, r *reprisev1.JoinRoomRequest) (*reprisev1.JoinRoomResponse, error) {
	return f.joinRoom(ctx, r)
}

func (f *fake) LeaveRoom(ctx context.Context, r *reprisev1.LeaveRoomRequest) (*reprisev1.LeaveRoomResponse, error) {
	return f.leaveRoom(ctx, r)
}

func (f *fake) InviteMember(ctx context.Context, r *reprisev1.InviteMemberRequest) (*reprisev1.InviteMemberResponse, error) {
	return f.invite(ctx, r)
}

func (f *fake) ListInvitations(_ context.Context, r *reprisev1.ListInvitationsRequest) (*reprisev1.ListInvitationsResponse, error) {
	if r.GetPageToken() == "" {
		return &reprisev1.ListInvitationsResponse{Invitations: []*reprisev1.Invitation{{Room: "a", By: "bob"}}, NextPageToken: "p2"}, nil
	}
	return &reprisev1.ListInvitationsResponse{Invitations: []*reprisev1.Invitation{{Room: "b", By: "eve"}}}, nil
}

func (f *fake) CreateRoom(ctx context.Context, r *reprisev1.CreateRoomRequest) (*reprisev1.CreateRoomResponse, error) {
	return f.createRoom(ctx, r)
}

func (f *fake) ListEvents(ctx context.Context, r *reprisev1.ListEventsRequest) (*reprisev1.ListEventsResponse, error) {
	return f.listEvents(ctx, r)
}

func (f *fake) ListRooms(ctx context.Context, r *reprisev1.ListRoomsRequest) (*reprisev1.ListRoomsResponse, error) {
	f.note(ctx)
	return f.listRooms(ctx, r)
}

func (f *fake) Tail(r *reprisev1.TailRequest, s grpc.ServerStreamingServer[reprisev1.ServerFrame]) error {
	return f.tail(r, s)
}

// accept waits for the client's next stream, without a Welcome yet. The wait
// is in the bubble's time.
func (f *fake) accept() *fakeStream {
	f.t.Helper()
	select {
	case s := <-f.streams:
		return s
	case <-time.After(time.Hour):
		f.t.Fatal("the client does not attach")
		return nil
	}
}

// none fails if the client attaches within d.
func (f *fake) none(d time.Duration) {
	f.t.Helper()
	select {
	case <-f.streams:
		f.t.Fatal("the client attaches")
	case <-time.After(d):
	}
}

// welcome is accept and a Welcome for session s1, changed by edit.
func (f *fake) welcome(attach uint64, edit ...func(*reprisev1.Welcome)) *fakeStream {
	f.t.Helper()
	s := f.accept()
	s.welcome(attach, edit...)
	return s
}

func (s *fakeStream) welcome(attach uint64, edit ...func(*reprisev1.Welcome)) {
	s.t.Helper()
	w := &reprisev1.Welcome{
		SessionId: "s_1", ResumeKey: fmt.Sprintf("rk_%d", attach), Attach: attach,
		Outcome: reprisev1.Outcome_OUTCOME_EXACT, Heartbeat: durationpb.New(20 * time.Second),
	}
	if s.first.GetOpen() != nil {
		w.Outcome = reprisev1.Outcome_OUTCOME_NEW
	}
	for _, e := range edit {
		e(w)
	}
	s.send(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Welcome{Welcome: w}})
}

func (s *fakeStream) send(frames ...*reprisev1.ServerFrame) {
	s.t.Helper()
	for _, f := range frames {
		if err := s.rpc.Send(f); err != nil {
			s.t.Errorf("fake: send: %v", err)
		}
	}
}

// trySend is send to a client that may hang up meanwhile.
func (s *fakeStream) trySend(frames ...*reprisev1.ServerFrame) {
	for _, f := range frames {
		if s.rpc.Send(f) != nil {
			return
		}
	}
}

// end ends the stream with a status.
func (s *fakeStream) end(err error) { s.out <- err }

// recv returns the client's next frame.
func (s *fakeStream) recv() *reprisev1.ClientFrame {
	s.t.Helper()
	select {
	case f := <-s.in:
		return f
	case <-time.After(time.Hour):
		s.t.Fatal("no frame from the client")
		return nil
	}
}

// ack waits for an acknowledgement of positions and returns it as
// room:incarnation/offset, having sent its receipt.
func (s *fakeStream) ack() map[string]string {
	s.t.Helper()
	f := s.recv()
	if f.GetAck() == nil || len(f.GetAck().GetPositions()) == 0 {
		s.t.Fatalf("got %v, want an acknowledgement", f)
	}
	s.send(receipt(f.GetRequestId(), &reprisev1.Receipt{Result: &reprisev1.Receipt_Ack{Ack: &reprisev1.AckResponse{}}}))
	return named(f.GetAck().GetPositions())
}

// idle fails if the client sends anything that waits now.
func (s *fakeStream) idle() {
	s.t.Helper()
	synctest.Wait()
	select {
	case f := <-s.in:
		s.t.Fatalf("unexpected frame: %v", f)
	default:
	}
}

func named(positions []*reprisev1.Position) map[string]string {
	m := map[string]string{}
	for _, p := range positions {
		m[p.GetRoom()] = fmt.Sprintf("%s/%d", p.GetIncarnation(), p.GetOffset())
	}
	return m
}

// Frames.

func receipt(id string, r *reprisev1.Receipt) *reprisev1.ServerFrame {
	r.RequestId = id
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Receipt{Receipt: r}}
}

func sent(id string, offset uint64) *reprisev1.ServerFrame {
	return receipt(id, &reprisev1.Receipt{Result: &reprisev1.Receipt_SendMessage{
		SendMessage: &reprisev1.SendMessageResponse{Room: "a", Incarnation: "i1", Offset: offset},
	}})
}

func fault(id string, code codes.Code, reason string, after time.Duration) *reprisev1.ServerFrame {
	f := &reprisev1.Fault{RequestId: id, Code: int32(code), Reason: reason, Message: "no"}
	if after > 0 {
		f.RetryAfter = durationpb.New(after)
	}
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Fault{Fault: f}}
}

func roomState(room, incarnation string, offset uint64) *reprisev1.ServerFrame {
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_RoomState{RoomState: &reprisev1.RoomState{
		Room:     &reprisev1.Room{Name: room},
		Position: &reprisev1.Position{Room: room, Incarnation: incarnation, Offset: offset},
	}}}
}

func roomClosed(room string) *reprisev1.ServerFrame {
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_RoomClosed{RoomClosed: &reprisev1.RoomClosed{
		Room: room, Reason: reprisev1.RoomClosed_REASON_LEFT, By: "bob", Offset: 7,
	}}}
}

// events is one frame of consecutive messages with the given offsets; the
// first one comes after `after`.
func events(room, incarnation string, after uint64, offsets ...uint64) *reprisev1.ServerFrame {
	f := &reprisev1.Events{Room: room, Incarnation: incarnation}
	for _, offset := range offsets {
		f.Events = append(f.Events, &reprisev1.Event{
			Offset: offset, After: after, Sender: "bob",
			Body: &reprisev1.Event_Message{Message: &reprisev1.Message{Text: fmt.Sprint("text ", offset)}},
		})
		after = offset
	}
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Events{Events: f}}
}

func gapFrame(room, incarnation string, first, last uint64) *reprisev1.ServerFrame {
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Gap{Gap: &reprisev1.Gap{
		Room: room, First: first, Last: last, Incarnation: incarnation,
		Reason: reprisev1.GapReason_GAP_REASON_REPLAY_LIMIT, Recoverable: true,
	}}}
}

func rewindFrame(room, incarnation string, to uint64) *reprisev1.ServerFrame {
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Rewind{Rewind: &reprisev1.Rewind{
		Room: room, Incarnation: incarnation, To: to,
	}}}
}

func caughtUp(room, incarnation string, offset uint64) *reprisev1.ServerFrame {
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_CaughtUp{CaughtUp: &reprisev1.CaughtUp{
		Room: room, Incarnation: incarnation, Offset: offset,
	}}}
}

func checkpoint(id string, acks uint64) *reprisev1.ServerFrame {
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Checkpoint{Checkpoint: &reprisev1.Checkpoint{Id: id, Acks: acks}}}
}

func heartbeat() *reprisev1.ServerFrame {
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Heartbeat{Heartbeat: &reprisev1.Heartbeat{}}}
}

func drain(after, closes time.Duration) *reprisev1.ServerFrame {
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Drain{Drain: &reprisev1.Drain{
		MoveAfter: durationpb.New(after), ClosesIn: durationpb.New(closes),
	}}}
}

func moved() *reprisev1.ServerFrame {
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Moved{Moved: &reprisev1.Moved{}}}
}

func fenced() *reprisev1.ServerFrame {
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Fenced{Fenced: &reprisev1.Fenced{Attach: 9}}}
}

var unavailable = status.Error(codes.Unavailable, "cut")

// serveBye answers the goodbye of a stream.
func (s *fakeStream) serveBye() {
	go func() {
		for {
			select {
			case f := <-s.in:
				if f.GetBye() != nil {
					s.end(nil)
					return
				}
			case <-s.gone:
				return
			}
		}
	}()
}
