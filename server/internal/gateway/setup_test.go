package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// Methods under test, one of each shape.
const (
	connect = reprisev1.ChatService_Connect_FullMethodName
	open    = reprisev1.ChatService_Open_FullMethodName
	getRoom = reprisev1.ChatService_GetRoom_FullMethodName
)

var quiet = slog.New(slog.DiscardHandler)

func TestMain(m *testing.M) {
	LimitGRPCLog(quiet)
	goleak.VerifyTestMain(m, wrapperTimer)
}

// wrapperTimer is one goroutine that a package of the wrapper's starts in its
// init and never ends.
var wrapperTimer = goleak.IgnoreTopFunction("github.com/desertbit/timer.timerRoutine")

// chat is a service that does what a test says.
type chat struct {
	reprisev1.UnimplementedChatServiceServer
	onConnect func(grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error
	onOpen    func(*reprisev1.OpenRequest, grpc.ServerStreamingServer[reprisev1.ServerFrame]) error
	onGetRoom func(context.Context, *reprisev1.GetRoomRequest) (*reprisev1.GetRoomResponse, error)

	started, ended atomic.Int64
}

func (c *chat) Connect(s grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error {
	c.started.Add(1)
	defer c.ended.Add(1)
	if c.onConnect != nil {
		return c.onConnect(s)
	}
	return echo(s)
}

func (c *chat) Open(r *reprisev1.OpenRequest, s grpc.ServerStreamingServer[reprisev1.ServerFrame]) error {
	c.started.Add(1)
	defer c.ended.Add(1)
	if c.onOpen != nil {
		return c.onOpen(r, s)
	}
	for i := range r.GetHistory() {
		if err := s.Send(event(uint64(i)+1, 128)); err != nil {
			return err
		}
	}
	return nil
}

func (c *chat) GetRoom(ctx context.Context, r *reprisev1.GetRoomRequest) (*reprisev1.GetRoomResponse, error) {
	c.started.Add(1)
	defer c.ended.Add(1)
	if c.onGetRoom != nil {
		return c.onGetRoom(ctx, r)
	}
	return &reprisev1.GetRoomResponse{}, nil
}

// echo answers each frame with a receipt that has its request id.
func echo(s grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error {
	for {
		f, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.Send(receipt(f.GetRequestId())); err != nil {
			return err
		}
	}
}

func receipt(id string) *reprisev1.ServerFrame {
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Receipt{Receipt: &reprisev1.Receipt{RequestId: id}}}
}

func frame(id string) *reprisev1.ClientFrame { return &reprisev1.ClientFrame{RequestId: id} }

// event is a frame with one event whose text has the size given.
func event(offset uint64, size int) *reprisev1.ServerFrame {
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Events{Events: &reprisev1.Events{
		Room: "lobby",
		Events: []*reprisev1.Event{{
			Offset: offset,
			After:  offset - 1,
			Body:   &reprisev1.Event_Message{Message: &reprisev1.Message{Text: string(make([]byte, size))}},
		}},
	}}}
}

// fixture is a running gateway.
type fixture struct {
	*Gateway
	chat   *chat
	base   string
	addr   string
	client *http.Client
	serve  chan error
}

// start serves a gateway on a port of its own for the test's duration.
func start(t testing.TB, c *chat, change func(*Options)) *fixture {
	t.Helper()
	o := Options{
		Logger:   quiet,
		Register: func(r grpc.ServiceRegistrar) { reprisev1.RegisterChatServiceServer(r, c) },
		Page: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "the page")
		}),
	}
	if change != nil {
		change(&o)
	}
	g, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true}
	f := &fixture{
		Gateway: g, chat: c, addr: l.Addr().String(), base: "http://" + l.Addr().String(),
		client: &http.Client{Transport: transport}, serve: make(chan error, 1),
	}
	go func() { f.serve <- g.Serve(l) }()
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = g.Shutdown(ctx)
		if err := <-f.serve; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	f.settle(t)
	return f
}

// settle waits until the gateway serves and has nothing open, so that a test
// can count goroutines.
func (f *fixture) settle(t testing.TB) {
	t.Helper()
	resp, err := f.client.Get(f.base + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	f.client.CloseIdleConnections()
	eventually(t, "nothing is open", func() bool { return f.conns.tally.count() == 0 })
}

// eventually waits until the condition holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !within(ok) {
		t.Fatalf("not within 10 s: %s", what)
	}
}

// within reports whether the condition comes to hold within 10 seconds.
func within(ok func() bool) bool {
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// ctxOf returns a context that ends with the test, or when it takes too long.
func ctxOf(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// stacks is what all goroutines are doing.
func stacks() []byte {
	b := make([]byte, 64<<10)
	return b[:runtime.Stack(b, true)]
}
