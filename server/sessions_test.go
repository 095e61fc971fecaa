package server_test

import (
	"testing"

	"google.golang.org/grpc/codes"

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
	}
	// Closing the sending side is not goodbye.
	n.join("alice", "lobby")
	half := n.connect("alice", &reprisev1.OpenRequest{})
	half.client.CloseSend()
	half.caughtUp()
	n.say("alice", "lobby", "hello")
	half.reach("lobby", 3)
}
