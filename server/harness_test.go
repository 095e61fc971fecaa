package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

// patience bounds every wait of these tests: reaching it is a failure.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		runChild(dir)
		return
	}
	// A package of the gateway starts a goroutine when it is loaded.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/desertbit/timer.timerRoutine"))
}

// node is a server over a directory, and a connection to it.
type node struct {
	t    *testing.T
	opts server.Options
	srv  *server.Server
	addr string
	web  string // http://host:port
	conn *grpc.ClientConn
	reprisev1.ChatServiceClient
	served chan error
}

// serve starts a server on an empty directory. It is stopped when the test
// ends.
func serve(t *testing.T, change ...func(*server.Options)) *node {
	t.Helper()
	o := server.Options{
		Dir: filepath.Join(t.TempDir(), "data"), DiskReserve: -1,
		Logger: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Limits: server.Limits{UserPublishes: -1, RoomPublishes: -1, UserCreates: -1, Attaches: -1},
	}
	for _, f := range change {
		f(&o)
	}
	n := &node{t: t, opts: o}
	n.start()
	t.Cleanup(n.stop)
	return n
}

// start opens the directory and serves it on fresh ports.
func (n *node) start() {
	n.t.Helper()
	srv, err := server.New(n.opts)
	if err != nil {
		n.t.Fatal(err)
	}
	grpcListener, httpListener := loopback(n.t), loopback(n.t)
	n.srv, n.served = srv, make(chan error, 1)
	go func() { n.served <- srv.Serve(grpcListener, httpListener) }()
	n.addr, n.web = grpcListener.Addr().String(), "http://"+httpListener.Addr().String()
	n.dial()
}

func (n *node) dial() {
	n.t.Helper()
	var err error
	if n.conn, err = dial(n.addr); err != nil {
		n.t.Fatal(err)
	}
	n.ChatServiceClient = reprisev1.NewChatServiceClient(n.conn)
}

func dial(addr string, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient(addr, append(more, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
}

// stop disconnects the clients and shuts the server down.
func (n *node) stop() {
	if n.srv == nil {
		return
	}
	n.conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.srv.Shutdown(ctx); err != nil {
		n.t.Errorf("Shutdown: %v", err)
	}
	if err := <-n.served; err != nil {
		n.t.Errorf("Serve: %v", err)
	}
	n.srv = nil
}

// restart stops the server and starts another one on the same directory.
func (n *node) restart() {
	n.t.Helper()
	n.stop()
	n.start()
}

func loopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// as returns a context of a user, which ends with the test or after patience.
func as(t *testing.T, user string) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer dev:"+user)
}

func (n *node) join(user string, rooms ...string) {
	n.t.Helper()
	for _, r := range rooms {
		if _, err := n.JoinRoom(as(n.t, user), &reprisev1.JoinRoomRequest{Room: r}); err != nil {
			n.t.Fatalf("%s joins %s: %v", user, r, err)
		}
	}
}

func (n *node) leave(user, room string) uint64 {
	n.t.Helper()
	out, err := n.LeaveRoom(as(n.t, user), &reprisev1.LeaveRoomRequest{Room: room})
	if err != nil {
		n.t.Fatalf("%s leaves %s: %v", user, room, err)
	}
	return out.GetOffset()
}

// say publishes texts one after another and returns the last one's answer.
func (n *node) say(user, room string, texts ...string) (last *reprisev1.SendMessageResponse) {
	n.t.Helper()
	for _, text := range texts {
		var err error
		last, err = n.SendMessage(as(n.t, user), &reprisev1.SendMessageRequest{Room: room, Text: text})
		if err != nil {
			n.t.Fatalf("%s to %s: %v", user, room, err)
		}
	}
	return last
}

// fill publishes count events of size bytes as fast as it can.
func (n *node) fill(user, room string, count, size int) {
	n.t.Helper()
	text := string(make([]byte, size))
	ctx := as(n.t, user)
	var wg sync.WaitGroup
	errs := make(chan error, count)
	work := make(chan struct{}, count)
	for range count {
		work <- struct{}{}
	}
	close(work)
	for range 32 {
		wg.Go(func() {
			for range work {
				_, err := n.SendMessage(ctx, &reprisev1.SendMessageRequest{Room: room, Text: text})
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			n.t.Fatalf("fill %s: %v", room, err)
		}
	}
}

func (n *node) room(user, name string) *reprisev1.Room {
	n.t.Helper()
	out, err := n.GetRoom(as(n.t, user), &reprisev1.GetRoomRequest{Room: name})
	if err != nil {
		n.t.Fatalf("GetRoom %s: %v", name, err)
	}
	return out.GetRoom()
}

// log returns what is retained of a room.
func (n *node) log(user, room string) (events []*reprisev1.Event) {
	n.t.Helper()
	for after := uint64(0); ; {
		out, err := n.ListEvents(as(n.t, user), &reprisev1.ListEventsRequest{Room: room, After: after, Limit: 1000})
		if err != nil {
			n.t.Fatalf("ListEvents %s: %v", room, err)
		}
		for _, s := range out.GetStretches() {
			for _, e := range s.GetEvents() {
				events = append(events, e)
				after = e.GetOffset()
			}
		}
		if !out.GetMore() {
			return events
		}
	}
}

func names(prefix string, count int) []string {
	out := make([]string, count)
	for i := range out {
		out[i] = fmt.Sprintf("%s%03d", prefix, i)
	}
	return out
}

// refused checks the code and the reason of an error.
func refused(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	if got, why := status.Code(err), reasonOf(err); got != code || why != reason {
		t.Fatalf("got %v %q (%v), want %v %q", got, why, err, code, reason)
	}
}

func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// within fails the test if f takes longer than patience.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("waited too long: " + what)
	}
}
