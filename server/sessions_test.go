package server_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

// Beyond the limit a user's oldest detached session makes room; attached ones
// never do.
func TestP7_SessionsLimit(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.Limits.SessionsPerUser = 3 })
	var all []*stream
	for range 3 {
		all = append(all, n.open("alice", &reprisev1.OpenRequest{}).caughtUp())
	}
	refused(t, n.open("alice", &reprisev1.OpenRequest{}).end(), codes.ResourceExhausted, "TOO_MANY_SESSIONS")
	n.open("bob", &reprisev1.OpenRequest{}).caughtUp() // another user's own limit
	all[2].hangUp()
	n.detached("alice", all[2])
	all[1].hangUp()
	n.detached("alice", all[1])
	n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	if w := n.resume("alice", all[2].again()).greeted().welcome; w.GetOutcome() != reprisev1.Outcome_OUTCOME_EXACT {
		t.Errorf("the younger session is gone: %v", w)
	}
	// The oldest detached one is gone, and comes back rebuilt if there is room.
	refused(t, n.resume("alice", all[1].again()).end(), codes.ResourceExhausted, "TOO_MANY_SESSIONS")
	all[0].hangUp()
	n.detached("alice", all[0])
	if w := n.resume("alice", all[1].again()).greeted().welcome; w.GetOutcome() != reprisev1.Outcome_OUTCOME_REBUILT {
		t.Errorf("Welcome %v", w)
	}
}

// detached waits until the server has noticed that a stream is gone.
func (n *node) detached(user string, s *stream) {
	n.t.Helper()
	within(n.t, "the session to be detached", func() {
		for {
			out, err := n.ListSessions(as(n.t, user), &reprisev1.ListSessionsRequest{})
			if err != nil {
				n.t.Error(err)
				return
			}
			attached := false
			for _, x := range out.GetSessions() {
				attached = attached || x.GetId() == s.welcome.GetSessionId() && x.GetAttached()
			}
			if !attached {
				return
			}
		}
	})
}

// Ending a session ends its stream; Bye ends a stream with OK.
func TestP7_EndSessionAndBye(t *testing.T) {
	n := serve(t)
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	if _, err := n.EndSession(as(t, "alice"), &reprisev1.EndSessionRequest{SessionId: s.welcome.GetSessionId()}); err != nil {
		t.Fatal(err)
	}
	refused(t, s.end(), codes.NotFound, "SESSION_NOT_FOUND")
	for _, end := range []bool{false, true} {
		s := n.connect("alice", &reprisev1.OpenRequest{}).caughtUp()
		s.send(&reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_Bye{Bye: &reprisev1.Bye{EndSession: end}}})
		for i := range 50 { // sent ahead, and not taken any more
			s.client.SendMsg(&reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_JoinRoom{JoinRoom: &reprisev1.JoinRoomRequest{Room: fmt.Sprintf("after-bye-%d", i)}}})
		}
		if err := s.end(); err == nil || reasonOf(err) != "" || err.Error() != "EOF" {
			t.Errorf("Bye (%v) ended the stream with %v", end, err)
		}
		want := reprisev1.Outcome_OUTCOME_EXACT
		if end {
			want = reprisev1.Outcome_OUTCOME_REBUILT
		}
		if w := n.resume("alice", s.again()).greeted().welcome; w.GetOutcome() != want {
			t.Errorf("after Bye (%v): Welcome %v", end, w)
		}
		if got, err := n.ListRooms(as(t, "alice"), &reprisev1.ListRoomsRequest{}); err != nil || len(got.GetRooms()) > 0 {
			t.Errorf("frames after Bye (%v) were carried out: %v, %v", end, got, err)
		}
	}
	// Closing the sending side is not goodbye.
	n.join("alice", "lobby")
	half := n.connect("alice", &reprisev1.OpenRequest{})
	half.client.CloseSend()
	half.caughtUp()
	n.say("alice", "lobby", "hello")
	half.reach("lobby", 3)
}

// What a user's programs leave behind, one session at each start, ends before
// the session of a device that has a place to lose.
func TestP7_StartsOfPrograms(t *testing.T) {
	t.Parallel()      // it waits most of its time
	const starts = 40 // of 32 sessions
	for _, c := range []struct {
		name string
		// resumed: the device has come back once before; acks: the programs
		// acknowledge what they read.
		resumed, acks bool
	}{{"that only look", false, false}, {"that acknowledge", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			n := serve(t)
			n.join("alice", "lobby")
			device := n.connect("alice", &reprisev1.OpenRequest{}).caughtUp()
			if c.resumed {
				device.hangUp()
				device = n.connect("alice", device.again()).caughtUp()
			}
			n.say("alice", "lobby", "one")
			device.reach("lobby", 3)
			device.ack(device.position("lobby"))
			device.checkpoint(1)
			device.hangUp()
			n.detached("alice", device)
			for i := range starts {
				program := n.connect("alice", &reprisev1.OpenRequest{History: 1}).caughtUp()
				if c.acks {
					program.ack(program.position("lobby"))
					n.say("alice", "lobby", "more")
					program.reach("lobby", uint64(4+i))
					program.ack(program.position("lobby"))
					program.checkpoint(1)
				}
				program.hangUp()
				n.detached("alice", program)
			}
			n.say("alice", "lobby", "last")
			back := n.resume("alice", device.keyOnly()).caughtUp()
			if w := back.welcome; w.GetOutcome() != reprisev1.Outcome_OUTCOME_EXACT || w.GetSessionId() != device.welcome.GetSessionId() {
				t.Fatalf("Welcome %v", w)
			}
			head := uint64(4)
			if c.acks {
				head += starts
			}
			back.held("lobby", 3, head)
		})
	}
}

// More clients than a user may have attached are told so, for good: it does not
// pass by itself.
func TestP7_TooManyClientsOfOneUser(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.Limits.StreamsPerConnection = 1000 })
	for range 32 {
		n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	}
	for range 168 {
		err := n.open("alice", &reprisev1.OpenRequest{}).end()
		refused(t, err, codes.ResourceExhausted, "TOO_MANY_SESSIONS")
		for _, d := range status.Convert(err).Details() {
			if _, ok := d.(*errdetails.RetryInfo); ok {
				t.Fatalf("told to try again: %v", err)
			}
		}
	}
}

// A session that ends with its stream takes nobody's place and leaves nothing
// behind.
func TestP7_Ephemeral(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.Limits.SessionsPerUser = 2 })
	n.join("alice", "lobby")
	for range 2 {
		kept := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
		defer func() {
			if w := n.resume("alice", kept.keyOnly()).greeted().welcome; w.GetOutcome() != reprisev1.Outcome_OUTCOME_EXACT {
				t.Errorf("Welcome %v", w)
			}
		}()
		kept.hangUp()
		n.detached("alice", kept)
	}
	listed := func() int {
		t.Helper()
		out, err := n.ListSessions(as(t, "alice"), &reprisev1.ListSessionsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return len(out.GetSessions())
	}
	first := n.connect("alice", &reprisev1.OpenRequest{Ephemeral: true, History: 1}).caughtUp()
	second := n.connect("alice", &reprisev1.OpenRequest{Ephemeral: true}).caughtUp()
	refused(t, n.open("alice", &reprisev1.OpenRequest{Ephemeral: true}).end(), codes.ResourceExhausted, "TOO_MANY_SESSIONS")
	if got := listed(); got != 4 {
		t.Errorf("%d sessions while they last", got)
	}
	// It does everything that a session does.
	if _, err := n.SendMessage(as(t, "alice"), &reprisev1.SendMessageRequest{Via: first.via(), Room: "lobby", Text: "hello"}); err != nil {
		t.Fatal(err)
	}
	first.reach("lobby", 3)
	if _, err := n.Ack(as(t, "alice"), &reprisev1.AckRequest{Via: first.via(), Positions: []*reprisev1.Position{first.position("lobby")}}); err != nil {
		t.Fatal(err)
	}
	_, err := n.Ack(as(t, "alice"), &reprisev1.AckRequest{Via: first.via(), Positions: []*reprisev1.Position{{Room: "lobby", Offset: 9}}})
	refused(t, err, codes.FailedPrecondition, "ACK_BEYOND_SENT")
	if _, err := n.EndSession(as(t, "alice"), &reprisev1.EndSessionRequest{SessionId: second.welcome.GetSessionId()}); err != nil {
		t.Fatal(err)
	}
	refused(t, second.end(), codes.NotFound, "SESSION_NOT_FOUND")
	first.hangUp()
	within(t, "the sessions to be gone", func() {
		for listed() != 2 {
			time.Sleep(time.Millisecond)
		}
	})
	_, err = n.SendMessage(as(t, "alice"), &reprisev1.SendMessageRequest{Via: first.via(), Room: "lobby", Text: "too late"})
	refused(t, err, codes.NotFound, "SESSION_NOT_FOUND")
	n.restart()
	if got := listed(); got != 2 {
		t.Errorf("%d sessions after a restart", got)
	}
}

// A resume of a session that ended with its stream is a new one, which starts
// where the client was.
func TestP7_ResumeOfEphemeral(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	s := n.open("alice", &reprisev1.OpenRequest{Ephemeral: true}).caughtUp()
	for range 2 { // still attached, and gone
		n.say("alice", "lobby", "more")
		back := n.resume("alice", s.again()).caughtUp()
		if w := back.welcome; w.GetOutcome() != reprisev1.Outcome_OUTCOME_REBUILT || w.GetSessionId() == s.welcome.GetSessionId() {
			t.Fatalf("Welcome %v", w)
		}
		back.held("lobby", 2, n.room("alice", "lobby").GetHead())
		s.hangUp()
		n.detached("alice", s)
	}
}
