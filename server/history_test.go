package server_test

import (
	"fmt"
	"testing"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// Joining with a history delivers it, however the join and the stream that
// wants it interleave.
func TestJoinWithHistory(t *testing.T) {
	n := serve(t)
	s := n.connect("bob", &reprisev1.OpenRequest{}).caughtUp()
	for i := range 30 {
		room := fmt.Sprintf("room%d", i)
		n.join("alice", room)
		n.say("alice", room, "one", "two", "three")
		s.send(&reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_JoinRoom{
			JoinRoom: &reprisev1.JoinRoomRequest{Room: room, History: 2},
		}})
		state := s.until("RoomState", func(f *frame) bool { return f.GetRoomState() != nil }).GetRoomState()
		// Created, alice joined, three messages, bob joined: two before that.
		if first := state.GetPosition().GetOffset(); first != 3 {
			t.Fatalf("%s: delivery begins after %d, want 3", room, first)
		}
		s.reach(room, 6)
	}
}
