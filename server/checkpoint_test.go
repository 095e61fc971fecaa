package server_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// A checkpoint and the positions that moved since are enough to resume.
func TestP13_ResumeByCheckpoint(t *testing.T) {
	t.Parallel() // it waits most of its time
	n := serve(t)
	n.join("alice", "a", "b", "c")
	s := n.connect("alice", &reprisev1.OpenRequest{}).caughtUp()
	for _, room := range []string{"a", "b", "c"} {
		n.say("alice", room, "one", "two")
		s.reach(room, 4)
	}
	s.ack(s.position("a"))
	s.ack(s.position("b"))
	s.ack() // a sign of life is no acknowledgement
	checkpoint := s.checkpoint(2)
	s.hangUp()
	n.say("alice", "a", "three")
	r := s.keyOnly()
	r.Checkpoint = checkpoint
	r.Positions = []*reprisev1.Position{s.position("c")}
	for range 2 { // the Welcome is lost, and it still holds
		back := n.connect("alice", r).caughtUp()
		back.held("a", 4, 5)
		if back.rooms["b"] != nil || back.rooms["c"].moved || back.welcome.GetRoomsChanged() != 1 {
			t.Errorf("Welcome %v", back.welcome)
		}
		back.hangUp()
	}
	// It survives a restart, and a room that was gained meanwhile.
	s = n.connect("alice", r).caughtUp()
	n.say("alice", "c", "three")
	s.reach("c", 5)
	s.ack(s.position("c"))
	r = s.keyOnly()
	r.Checkpoint = s.checkpoint(1)
	s.hangUp()
	n.restart()
	n.join("alice", "gained")
	for range 2 {
		back := n.connect("alice", r).caughtUp()
		back.held("gained", 1, 2)
		back.held("a", 4, 5)
		if back.rooms["c"] != nil {
			t.Errorf("c was acknowledged and is named")
		}
		back.hangUp()
	}
}

// Where the server cannot tell what was acknowledged since a checkpoint, it
// asks for all positions.
func TestP13_PositionsNeeded(t *testing.T) {
	t.Parallel() // it waits most of its time
	n := serve(t)
	n.join("alice", "a", "b")
	s := n.connect("alice", &reprisev1.OpenRequest{}).caughtUp()
	n.say("alice", "a", "one")
	n.say("alice", "b", "one")
	s.reach("a", 3)
	s.reach("b", 3)
	s.ack(s.position("a"))
	old := s.checkpoint(1)
	s.ack(s.position("b"))
	newer := s.checkpoint(2)
	s.hangUp()
	needed := func(how string, r *reprisev1.ResumeRequest) {
		t.Helper()
		refused(t, n.connect("alice", r).end(), codes.FailedPrecondition, "POSITIONS_NEEDED")
	}
	r := s.keyOnly()
	r.Checkpoint = old
	needed("b was stored later and is not named", r)
	r.Positions = []*reprisev1.Position{s.position("b")}
	n.connect("alice", r).caughtUp().hangUp()
	for _, unknown := range []string{"cp_zzz", "cp_0nsense"} {
		r = s.keyOnly()
		r.Checkpoint = unknown
		needed(unknown, r)
	}
	if _, err := n.EndSession(as(t, "alice"), &reprisev1.EndSessionRequest{SessionId: s.welcome.GetSessionId()}); err != nil {
		t.Fatal(err)
	}
	r = s.keyOnly()
	r.Checkpoint = newer
	needed("the record is lost", r)
	if w := n.connect("alice", s.again()).caughtUp().welcome; w.GetOutcome() != reprisev1.Outcome_OUTCOME_REBUILT {
		t.Errorf("with all positions: %v", w)
	}
}

// Acknowledgements are cumulative, and none may be beyond what was sent.
func TestP2_Acknowledge(t *testing.T) {
	n := serve(t)
	n.join("alice", "a", "b")
	s := n.connect("alice", &reprisev1.OpenRequest{}).caughtUp()
	n.say("alice", "a", "3", "4", "5")
	s.reach("a", 5)
	at := func(room string, offset uint64) *reprisev1.Position {
		return &reprisev1.Position{Room: room, Offset: offset, Incarnation: s.rooms["a"].incarnation}
	}
	fault := func(reason string, ps ...*reprisev1.Position) {
		t.Helper()
		s.send(&reprisev1.ClientFrame{RequestId: "r", Frame: &reprisev1.ClientFrame_Ack{Ack: &reprisev1.AckRequest{Positions: ps}}})
		f := s.until("an answer", func(f *frame) bool { return f.GetReceipt() != nil || f.GetFault() != nil })
		if f.GetFault().GetReason() != reason {
			t.Errorf("%v: %v, want %q", ps, f.ServerFrame, reason)
		}
	}
	fault("ACK_BEYOND_SENT", at("a", 6))
	fault("ACK_BEYOND_SENT", at("a", 5), at("b", 3)) // all or none
	fault("ACK_BEYOND_SENT", at("nowhere", 1), at("b", 3))
	fault("", at("nowhere", 1)) // counts for nothing
	fault("ACK_BEYOND_SENT", &reprisev1.Position{Room: "a", Offset: 5, Incarnation: "i_other"})
	fault("", at("b", 2)) // the effective position at the attach counts as sent
	fault("", at("a", 4))
	fault("", at("a", 3)) // cumulative: takes nothing back
	if _, err := n.Ack(as(t, "alice"), &reprisev1.AckRequest{Via: s.via(), Positions: []*reprisev1.Position{at("a", 3)}}); err != nil {
		t.Error(err)
	}
	s.hangUp()
	back := n.connect("alice", s.keyOnly()).caughtUp()
	if got := back.rooms["a"].offsets; len(got) != 1 || got[0] != 5 {
		t.Errorf("resumed with %v, want 5", got)
	}
	back.hangUp()
	// The client's own position replaces the stored one, even downwards.
	r := s.keyOnly()
	r.Positions = []*reprisev1.Position{at("a", 2)}
	n.connect("alice", r).caughtUp().hangUp()
	back = n.connect("alice", back.keyOnly()).caughtUp()
	back.held("a", 2, 5)
}

// An acknowledgement that names a room just left takes the others.
func TestP2_AcknowledgeBesideALeftRoom(t *testing.T) {
	n := serve(t)
	n.join("alice", "gone", "stays")
	s := n.connect("alice", &reprisev1.OpenRequest{}).caughtUp()
	n.say("alice", "gone", "3")
	n.say("alice", "stays", "3", "4")
	s.reach("gone", 3)
	s.reach("stays", 4)
	both := []*reprisev1.Position{s.position("gone"), s.position("stays")}
	n.leave("alice", "gone")
	s.until("RoomClosed", func(f *frame) bool { return f.GetRoomClosed() != nil })
	s.ack(both...)
	s.checkpoint(1)
	if _, err := n.Ack(as(t, "alice"), &reprisev1.AckRequest{Via: s.via(), Positions: both}); err != nil {
		t.Errorf("as a call: %v", err)
	}
	s.hangUp()
	n.say("alice", "stays", "5")
	back := n.resume("alice", s.keyOnly()).caughtUp()
	back.held("stays", 4, 5)
	if p := back.rooms["stays"]; len(p.gaps) > 0 || len(p.offsets) != 1 {
		t.Errorf("got %v, gaps %v", p.offsets, p.gaps)
	}
}
