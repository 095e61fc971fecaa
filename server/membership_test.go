package server_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// A client that did not read while its user came and went sees only what its
// user was a member for, and each room in the state it is in at last.
func TestP7_StalledReaderSeesOnlyItsMemberships(t *testing.T) {
	n := serve(t)
	n.join("bob", "lobby", "once")
	n.join("alice", "big", "lobby")
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	n.fill("alice", "big", 100, 60_000) // more than the socket takes unread
	n.say("bob", "lobby", "for alice")
	left := n.leave("alice", "lobby")
	n.say("bob", "lobby", names("between", 5)...)
	for range 3 {
		n.join("alice", "once")
		n.leave("alice", "once")
		n.say("bob", "once", names("never", 5)...)
		n.join("alice", "lobby")
		n.leave("alice", "lobby")
		n.say("bob", "lobby", names("between", 5)...)
	}
	n.join("alice", "lobby")
	head := n.say("bob", "lobby", "again for alice").GetOffset()
	closed := s.until("RoomClosed", func(f *frame) bool { return f.GetRoomClosed() != nil }).GetRoomClosed()
	if before := s.rooms["lobby"]; closed.GetOffset() != left || before.last != left || before.texts[0] != "for alice" {
		t.Fatalf("RoomClosed %v, left at %d, texts %q up to %d", closed, left, before.texts, before.last)
	}
	s.until("RoomState", func(f *frame) bool { return f.GetRoomState() != nil })
	s.reach("lobby", head)
	if p := s.rooms["lobby"]; p.texts[len(p.texts)-1] != "again for alice" || p.offsets[0] != head-1 {
		t.Errorf("after the last join: %q at %v, head %d", p.texts, p.offsets, head)
	}
	s.reach("big", 102)
	if p := s.rooms["once"]; p != nil && len(p.offsets) > 0 {
		t.Errorf("a room that is left again shows %v", p.offsets)
	}
}

// Leaving ends what is left of a room's replay, and the others' goes on.
func TestP7_LeaveDuringReplay(t *testing.T) {
	n := serve(t)
	n.join("bob", "lobby")
	n.join("alice", "big", "lobby")
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	s.hangUp()
	n.fill("alice", "big", 100, 60_000)
	n.fill("bob", "lobby", 50, 60_000)
	r := s.again()
	r.Focus = []string{"big"}
	s = n.resume("alice", r).greeted()
	left := n.leave("alice", "lobby")
	n.say("bob", "lobby", "between")
	s.caughtUp()
	for s.rooms["lobby"].closed == nil {
		s.next()
	}
	if p := s.rooms["lobby"]; p.last != left || p.closed.GetOffset() != left {
		t.Errorf("closed %v at %d, left at %d", p.closed, p.last, left)
	}
	s.held("big", 2, 102)
}

// A Tail ends where its reader's membership does.
func TestP7_TailEndsWithMembership(t *testing.T) {
	n := serve(t)
	n.join("bob", "lobby")
	n.join("alice", "lobby")
	s := n.tail("alice", &reprisev1.TailRequest{Room: "lobby", Follow: true}).caughtUp()
	left := n.leave("alice", "lobby")
	n.say("bob", "lobby", "between")
	refused(t, s.end(), codes.NotFound, "ROOM_NOT_FOUND")
	if s.rooms["lobby"].last != left {
		t.Errorf("the Tail went on to %d, left at %d", s.rooms["lobby"].last, left)
	}
}
