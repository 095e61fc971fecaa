package server_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

func trimOften(o *server.Options) { o.TrimEvery = 10 * time.Millisecond }

func (n *node) keep(user, room string, r *reprisev1.Retention) {
	n.t.Helper()
	if _, err := n.CreateRoom(as(n.t, user), &reprisev1.CreateRoomRequest{Room: room, Retention: r}); err != nil {
		n.t.Fatal(err)
	}
}

// Each bound of retention holds by itself, in the room that has it only, and
// offsets never restart.
func TestP2_RetentionBounds(t *testing.T) {
	n := serve(t, trimOften)
	n.keep("alice", "count", &reprisev1.Retention{MaxEvents: 10})
	n.keep("alice", "bytes", &reprisev1.Retention{MaxBytes: 5000})
	n.keep("alice", "age", &reprisev1.Retention{MaxAge: durationpb.New(50 * time.Millisecond)})
	n.join("alice", "forever")
	for _, room := range []string{"count", "bytes", "age", "forever"} {
		n.fill("alice", room, 50, 900)
	}
	n.trimmedTo("alice", "count", 43)
	n.trimmedTo("alice", "bytes", 48)
	n.trimmedTo("alice", "age", 53)
	for room, oldest := range map[string]uint64{"count": 43, "bytes": 48, "age": 53, "forever": 1} {
		if r := n.room("alice", room); r.GetOldest() != oldest || r.GetHead() != 52 {
			t.Errorf("%s: [%d, %d], want [%d, 52]", room, r.GetOldest(), r.GetHead(), oldest)
		}
	}
	n.restart()
	for _, room := range []string{"count", "age"} {
		if sent := n.say("alice", room, "next"); sent.GetOffset() != 53 {
			t.Errorf("%s: offset %d after a restart, want 53", room, sent.GetOffset())
		}
	}
}

// Whoever is behind retention is told so: at a resume, in a Tail, by
// ListEvents, and on a live stream that lags.
func TestP2_RetentionIsAGap(t *testing.T) {
	n := serve(t, trimOften)
	n.keep("alice", "lobby", &reprisev1.Retention{MaxEvents: 10})
	n.keep("alice", "slow", &reprisev1.Retention{MaxEvents: 10})
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	s.hangUp()
	lagging := n.connect("alice", &reprisev1.OpenRequest{Window: 1}).caughtUp()
	n.say("alice", "slow", "pauses the stream")
	lagging.reach("slow", 3)
	n.fill("alice", "slow", 50, 10)
	n.fill("alice", "lobby", 50, 10)
	n.trimmedTo("alice", "lobby", 43)
	n.trimmedTo("alice", "slow", 44)
	retained := func(how string, g *reprisev1.Gap, first, last uint64) {
		t.Helper()
		if g.GetFirst() != first || g.GetLast() != last || g.GetReason() != reprisev1.GapReason_GAP_REASON_RETENTION || g.GetRecoverable() {
			t.Errorf("%s: Gap %v, want [%d, %d]", how, g, first, last)
		}
	}
	back := n.resume("alice", s.again()).caughtUp()
	back.held("lobby", 2, 52)
	retained("resume", back.rooms["lobby"].gaps[0], 3, 42)
	if w := back.welcome; w.GetOutcome() != reprisev1.Outcome_OUTCOME_WITH_GAPS {
		t.Errorf("Welcome %v", w)
	}
	tail := n.tail("alice", &reprisev1.TailRequest{Room: "lobby", After: 20}).caughtUp()
	tail.held("lobby", 20, 52)
	retained("Tail", tail.rooms["lobby"].gaps[0], 21, 42)
	list, err := n.ListEvents(as(t, "alice"), &reprisev1.ListEventsRequest{Room: "lobby", After: 20})
	if err != nil || len(list.GetStretches()) != 1 || len(list.GetStretches()[0].GetEvents()) != 10 || list.GetOldest() != 43 || list.GetHead() != 52 {
		t.Fatalf("ListEvents: %v, %v", list, err)
	}
	retained("ListEvents", list.GetGap(), 21, 42)
	for lagging.rooms["slow"].last < 53 || lagging.rooms["lobby"].last < 52 {
		lagging.ack(lagging.position("slow"), lagging.position("lobby"))
		lagging.next()
	}
	lagging.held("slow", 3, 53)
	retained("live", lagging.rooms["slow"].gaps[0], 4, 43)
	lagging.held("lobby", 2, 52)
}
