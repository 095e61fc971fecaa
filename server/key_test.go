package server_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// A Welcome that is lost, and the next, and twenty, lock nobody out: the key
// before them is good until a later one was used.
func TestP7_LostWelcomesLockNobodyOut(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	request := s.again()
	attach := uint64(1)
	var last *stream
	for _, lost := range []int{2, 20} {
		for range lost {
			attach++
			last = n.resume("alice", request).greeted() // and nobody looks at it
			if w := last.welcome; w.GetSessionId() != request.GetSessionId() || w.GetAttach() != attach {
				t.Fatalf("attach %d: Welcome %v", attach, w)
			}
			last.hangUp()
		}
		n.restart()
	}
	// The newest one is good too; then the old ones are stale.
	stale := request
	request = last.again()
	request.Positions = s.positions()
	now := n.resume("alice", request).caughtUp()
	if w := now.welcome; w.GetSessionId() != request.GetSessionId() || w.GetOutcome() != reprisev1.Outcome_OUTCOME_EXACT {
		t.Fatalf("Welcome %v", w)
	}
	now.hangUp()
	n.say("alice", "lobby", "one")
	fork := n.resume("alice", stale).caughtUp()
	if w := fork.welcome; w.GetOutcome() != reprisev1.Outcome_OUTCOME_FORKED || w.GetSessionId() == stale.GetSessionId() {
		t.Fatalf("with a stale key: Welcome %v", w)
	}
	fork.held("lobby", 2, 3)
}

// What a stranger presents tells it nothing.
func TestP7_KeysOfOthers(t *testing.T) {
	n := serve(t)
	alice := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	mallory := n.open("mallory", &reprisev1.OpenRequest{}).caughtUp()
	stolen := n.resume("mallory", alice.again()).end()
	refused(t, stolen, codes.PermissionDenied, "RESUME_KEY_NOT_YOURS")
	unknown := alice.again()
	unknown.SessionId = "s_aaaaaaaaaaaaaaaa"
	same := n.resume("mallory", unknown).end()
	refused(t, same, codes.PermissionDenied, "RESUME_KEY_NOT_YOURS")
	if a, b := status.Convert(stolen).Message(), status.Convert(same).Message(); a != b {
		t.Errorf("a foreign session says %q, an unknown one %q", a, b)
	}
	for _, id := range []string{alice.welcome.GetSessionId(), "s_aaaaaaaaaaaaaaaa"} {
		r := mallory.again()
		r.SessionId = id
		back := n.resume("mallory", r).caughtUp()
		if w := back.welcome; w.GetOutcome() != reprisev1.Outcome_OUTCOME_REBUILT || w.GetSessionId() == id || w.GetAttach() != 1 {
			t.Errorf("session %s: Welcome %v", id, w)
		}
		_, err := n.EndSession(as(t, "mallory"), &reprisev1.EndSessionRequest{SessionId: id})
		refused(t, err, codes.NotFound, "SESSION_NOT_FOUND")
	}
	// And alice was not disturbed.
	n.join("alice", "lobby")
	alice.reach("lobby", 2)
}

// A session whose record is lost is rebuilt from the membership and the
// client's positions; where there is none, a Gap says so, until the client
// says that it has it.
func TestP7_RecordLost(t *testing.T) {
	t.Parallel() // it waits most of its time
	n := serve(t)
	n.join("alice", "known", "unknown")
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	s.hangUp()
	n.say("alice", "known", "a", "b")
	n.say("alice", "unknown", "a", "b")
	if _, err := n.EndSession(as(t, "alice"), &reprisev1.EndSessionRequest{SessionId: s.welcome.GetSessionId()}); err != nil {
		t.Fatal(err)
	}
	r := s.again()
	r.Positions = []*reprisev1.Position{s.position("known")}
	check := func(back *stream, outcome reprisev1.Outcome) {
		t.Helper()
		if w := back.welcome; w.GetOutcome() != outcome || w.GetRooms() != 2 {
			t.Fatalf("Welcome %v", w)
		}
		p := back.rooms["unknown"]
		if len(p.gaps) != 1 || p.gaps[0].GetReason() != reprisev1.GapReason_GAP_REASON_POSITION_UNKNOWN || !p.gaps[0].GetRecoverable() {
			t.Fatalf("gaps %v", p.gaps)
		}
		back.held("unknown", 0, 4)
	}
	back := n.connect("alice", r).caughtUp()
	check(back, reprisev1.Outcome_OUTCOME_REBUILT)
	back.held("known", 2, 4)
	// The client died before it could keep the Gap: it is told again.
	back.hangUp()
	next := back.keyOnly()
	back = n.connect("alice", next).caughtUp()
	check(back, reprisev1.Outcome_OUTCOME_WITH_GAPS)
	// A Gap is handled like an event.
	n.say("alice", "unknown", "c")
	back.reach("unknown", 5)
	back.ack(back.position("unknown"))
	back.checkpoint(1)
	back.hangUp()
	back = n.connect("alice", back.keyOnly()).caughtUp()
	if back.rooms["unknown"] != nil || back.welcome.GetOutcome() != reprisev1.Outcome_OUTCOME_EXACT {
		t.Fatalf("Welcome %v, %v", back.welcome, back.rooms["unknown"])
	}
}

// What a Welcome that was lost told is told again: rooms gained and lost, until
// a Welcome is known to have arrived.
func TestP7_LostWelcomesTellAgain(t *testing.T) {
	n := serve(t)
	n.join("alice", "before", "left")
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	s.hangUp()
	n.join("alice", "gained")
	n.leave("alice", "left")
	n.say("alice", "gained", "3")
	request := s.keyOnly() // with neither positions nor a checkpoint
	var last *stream
	for attempt := range 4 {
		last = n.resume("alice", request).caughtUp()
		gained, left := last.rooms["gained"], last.rooms["left"]
		if gained == nil || !gained.state.GetGained() || gained.state.GetPosition().GetOffset() != 1 {
			t.Fatalf("attempt %d: gained room %v", attempt, gained)
		}
		last.held("gained", 1, 3)
		if left == nil || left.closed.GetReason() != reprisev1.RoomClosed_REASON_LEFT {
			t.Fatalf("attempt %d: lost room %v", attempt, left)
		}
		if last.rooms["before"] != nil {
			t.Fatalf("attempt %d names a room that is as it was", attempt)
		}
		last.hangUp() // and nobody looked at it
		if attempt == 1 {
			n.restart()
		}
	}
	// The newest key proves that its Welcome came.
	back := n.resume("alice", last.keyOnly()).caughtUp()
	if p := back.rooms["gained"]; p != nil && p.state.GetGained() || back.rooms["left"] != nil {
		t.Errorf("told again: %v, %v", p, back.rooms["left"])
	}
}
