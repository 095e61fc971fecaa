package server_test

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

// Readers that stop reading hold up nobody, cost a bounded amount of memory,
// and lose nothing when they read again. They stop one after another, which is
// when each of them could hold on to another part of the room's tail.
func TestP6_StalledReaders(t *testing.T) {
	const stalled, clientSide, perReader = 200, 64 << 10, 128 << 10
	n := serve(t, func(o *server.Options) { o.Limits.TailsPerUser = 1000 })
	n.join("alice", "busy")
	n.join("bob", "busy")
	lively := n.open("bob", &reprisev1.OpenRequest{}).caughtUp()
	conns := make([]*grpc.ClientConn, stalled)
	for i := range conns {
		// What the client's side of a connection takes in unread is counted with
		// it, and must not grow.
		c, err := dial(n.addr, grpc.WithStaticStreamWindowSize(clientSide), grpc.WithStaticConnWindowSize(clientSide))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[i] = c
	}
	own := n.conn
	attach := func(i int) *stream {
		n.conn = conns[i]
		defer func() { n.conn = own }()
		if i%10 == 0 { // a user has so many sessions only
			return n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
		}
		head := n.room("bob", "busy").GetHead()
		return n.tail("alice", &reprisev1.TailRequest{Room: "busy", After: head, Follow: true}).caughtUp()
	}
	var streams []*stream
	for i := range stalled / 2 {
		streams = append(streams, attach(i))
	}
	before := heap()
	var worst time.Duration
	for round := range 20 {
		n.fill("alice", "busy", 25, 2000)
		for range 5 {
			streams = append(streams, attach(len(streams)))
		}
		began := time.Now()
		sent := n.say("alice", "busy", "now")
		lively.reach("busy", sent.GetOffset())
		if round > 0 {
			worst = max(worst, time.Since(began))
		}
	}
	n.fill("alice", "busy", 600, 2000) // the tail has moved on from all of them
	grown := heap() - before - 4<<20   // the tail, the lively reader's events and Pebble aside
	t.Logf("%d bytes a stalled reader, client side included; the lively one waited for %v at most", grown/stalled, worst)
	if grown > stalled*(perReader+clientSide) {
		t.Errorf("%d bytes a stalled reader, want at most %d", grown/stalled, perReader+clientSide)
	}
	if worst > 2*time.Second {
		t.Errorf("a reader that reads waited for %v", worst)
	}
	head := n.room("bob", "busy").GetHead()
	var wg sync.WaitGroup
	for i := 0; i < stalled; i += 6 {
		s := streams[i]
		from := s.rooms["busy"].last
		wg.Go(func() {
			for s.rooms["busy"].last < head {
				if _, err := s.recv(); err != nil {
					t.Errorf("reader %d at %d of %d: %v", i, s.rooms["busy"].last, head, err)
					return
				}
			}
			if got := uint64(len(s.rooms["busy"].offsets)); got != head-from {
				t.Errorf("reader %d got %d events of %d", i, got, head-from)
			}
		})
	}
	wg.Wait()
}

func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// A window pauses its own stream and drops nothing; acknowledging resumes it.
func TestP6_WindowPausesAndResumes(t *testing.T) {
	const window, size, last = 16 << 10, 500, 82
	n := serve(t)
	n.join("alice", "a", "b")
	s := n.connect("alice", &reprisev1.OpenRequest{Window: window}).caughtUp()
	if s.welcome.GetWindow() != window {
		t.Errorf("Welcome %v", s.welcome)
	}
	other := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	n.fill("alice", "a", last-2, size)
	n.fill("alice", "b", last-2, size)
	other.reach("a", last)
	other.reach("b", last)
	done := func() bool { return s.rooms["a"].last == last && s.rooms["b"].last == last }
	pauses := 0
	for !done() {
		unacked := 0
		for unacked < window-2*size && !done() {
			for _, e := range rawEvents(s.next().raw) {
				unacked += len(e)
			}
		}
		if unacked > window+size {
			t.Fatalf("%d bytes came, the window is %d", unacked, window)
		}
		pauses++
		s.ack(s.position("a"), s.position("b"))
	}
	if pauses < 5 {
		t.Errorf("paused %d times", pauses)
	}
	s.held("a", 2, last)
	s.held("b", 2, last)
	// And without an acknowledgement nothing comes.
	s = n.connect("alice", &reprisev1.OpenRequest{Window: 1}).caughtUp()
	n.say("alice", "a", "this fills the window")
	s.reach("a", last+1)
	n.say("alice", "a", "and this waits")
	s.quiet(200 * time.Millisecond)
	// A call opens the window of a stream that only reads, and does so itself:
	// not only when the Checkpoint has it looked at.
	s = n.open("alice", &reprisev1.OpenRequest{Window: 1}).caughtUp()
	early := 0
	for range 3 {
		sent := n.say("alice", "a", "one at a time")
		s.reach("a", sent.GetOffset())
		ack := &reprisev1.AckRequest{Via: s.via(), Positions: []*reprisev1.Position{s.position("a")}}
		sent = n.say("alice", "b", "waits for that")
		if _, err := n.Ack(as(t, "alice"), ack); err != nil {
			t.Fatal(err)
		}
		stored := false
		for s.rooms["b"].last < sent.GetOffset() {
			stored = s.next().GetCheckpoint() != nil || stored
		}
		if !stored {
			early++
		}
		ack.Positions = []*reprisev1.Position{s.position("b")}
		if _, err := n.Ack(as(t, "alice"), ack); err != nil {
			t.Fatal(err)
		}
	}
	if early == 0 {
		t.Error("an acknowledgement opens the window only when it is stored")
	}
}

// A client that never answers a Heartbeat keeps its stream.
func TestP6_SilenceEndsNothing(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.Heartbeat = 5 * time.Millisecond })
	n.join("alice", "lobby")
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	for beats := 0; beats < 50; {
		if s.next().GetHeartbeat() != nil {
			beats++
		}
	}
	n.say("alice", "lobby", "still there")
	s.reach("lobby", 3)
}
