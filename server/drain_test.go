package server_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

// A Shutdown keeps to its deadline with clients that ignore it and clients
// that do not read; streams end with UNAVAILABLE, and resume afterwards.
func TestP9_DrainKeepsToItsDeadline(t *testing.T) {
	t.Parallel() // it waits most of its time
	n := serve(t)
	n.join("alice", "lobby")
	n.join("bob", "lobby")
	stubborn := n.connect("alice", &reprisev1.OpenRequest{}).caughtUp()
	polite := n.connect("alice", &reprisev1.OpenRequest{}).caughtUp()
	deaf := n.open("bob", &reprisev1.OpenRequest{}).caughtUp()
	n.fill("alice", "lobby", 50, 60_000)
	stubborn.reach("lobby", 53)
	polite.reach("lobby", 53)
	began := time.Now()
	const deadline = 6 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- n.srv.Shutdown(ctx) }()
	told := polite.until("Drain", func(f *frame) bool { return f.GetDrain() != nil }).GetDrain()
	if told.GetMoveAfter().AsDuration() > told.GetClosesIn().AsDuration() || told.GetClosesIn().AsDuration() > deadline {
		t.Errorf("Drain %v", told)
	}
	// A new stream is told to come later.
	refused(t, n.open("alice", &reprisev1.OpenRequest{}).end(), codes.Unavailable, "DRAINING")
	// But work goes on until the end.
	sent := n.say("alice", "lobby", "during the drain")
	stubborn.reach("lobby", sent.GetOffset())
	polite.send(&reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_Bye{Bye: &reprisev1.Bye{}}})
	refused(t, stubborn.end(), codes.Unavailable, "DRAINING")
	if err := <-result; err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	// Half of it is the clients'; those that do not read are cut off a second
	// later.
	if took := time.Since(began); took > deadline-500*time.Millisecond {
		t.Errorf("Shutdown took %v", took)
	}
	n.conn.Close()
	<-n.served
	n.start()
	back := n.resume("bob", deaf.again()).caughtUp()
	back.reach("lobby", sent.GetOffset())
}

// An idle server, and one whose clients obey, stops at once.
func TestP9_DrainOfTheObedientIsQuick(t *testing.T) {
	n := serve(t)
	s := n.connect("alice", &reprisev1.OpenRequest{}).caughtUp()
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- n.srv.Shutdown(ctx) }()
	s.until("Drain", func(f *frame) bool { return f.GetDrain() != nil })
	s.hangUp()
	if err := <-result; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Shutdown took %v", took)
	}
	n.conn.Close()
	<-n.served
	n.srv = nil
}

// One directory, one server.
func TestP1_SecondServerIsRefused(t *testing.T) {
	n := serve(t)
	if _, err := server.New(n.opts); !errors.Is(err, server.ErrLocked) {
		t.Fatalf("New on a directory in use: %v", err)
	}
	n.join("alice", "lobby") // the first one was not disturbed
	n.restart()
}

// The development identity is for this machine only.
func TestP11_UnsafeListenerIsRefused(t *testing.T) {
	n := serve(t)
	srv, err := server.New(server.Options{Dir: t.TempDir(), DiskReserve: -1, Logger: n.opts.Logger})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Shutdown(context.Background())
	for _, open := range []int{0, 1} {
		l := []net.Listener{loopback(t), loopback(t)}
		l[open].Close()
		if l[open], err = net.Listen("tcp", "0.0.0.0:0"); err != nil {
			t.Fatal(err)
		}
		if err := srv.Serve(l[0], l[1]); !errors.Is(err, server.ErrUnsafeListener) {
			t.Errorf("listener %d on every address: %v", open, err)
		}
	}
}
