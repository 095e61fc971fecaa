package server_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

// A client that was away comes back while others publish: everything it lacks
// comes, exactly once, in order, the same bytes that a reader got who was
// there, and nothing live before a room has caught up (the account checks it).
func TestP2_ResumeWhileOthersPublish(t *testing.T) {
	n := serve(t)
	rooms := names("room", 40)
	n.join("alice", rooms...)
	n.join("bob", rooms...)
	witness := n.open("bob", &reprisev1.OpenRequest{}).caughtUp()
	s := n.connect("alice", &reprisev1.OpenRequest{}).caughtUp()
	for round := range 3 {
		s.hangUp()
		_ = s.end()
		for i, r := range rooms {
			if i%2 == 0 {
				n.say("bob", r, names(fmt.Sprint("away", round), 1+i/4)...)
			}
		}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := w; ; i++ {
					select {
					case <-stop:
						return
					default:
						n.say("bob", rooms[i%10], fmt.Sprintf("live-%d-%d", w, i))
					}
				}
			})
		}
		before := s
		s = n.connect("alice", s.again()).caughtUp()
		for range 200 {
			s.next()
		}
		close(stop)
		wg.Wait()
		for i, r := range rooms {
			head := n.room("bob", r).GetHead()
			if i >= 10 && i%2 == 1 {
				if s.rooms[r].moved {
					t.Errorf("%s did not move and is named", r)
				}
				continue
			}
			s.reach(r, head)
			s.held(r, before.rooms[r].last, head)
			witness.reach(r, head)
			for offset := before.rooms[r].last + 1; offset <= head; offset++ {
				if !bytes.Equal(s.rooms[r].events[offset], witness.rooms[r].events[offset]) {
					t.Fatalf("%s: event %d: replayed\n%x\nlive\n%x", r, offset, s.rooms[r].events[offset], witness.rooms[r].events[offset])
				}
			}
		}
	}
}

// A replayed event is the same bytes as the live one, from memory and, after a
// restart, from disk.
func TestP3_ReplayIsLive(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	live := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	start := live.positions()
	n.say("alice", "lobby", names("m", 50)...)
	if _, err := n.SendCustom(as(t, "alice"), &reprisev1.SendCustomRequest{Room: "lobby", Type: "x", Data: `{"a":1}`, ClientId: "c1"}); err != nil {
		t.Fatal(err)
	}
	live.reach("lobby", 53)
	compare := func(how string, s *stream) {
		t.Helper()
		s.reach("lobby", 53)
		for offset := uint64(3); offset <= 53; offset++ {
			if b := s.rooms["lobby"].events[offset]; len(b) == 0 || !bytes.Equal(b, live.rooms["lobby"].events[offset]) {
				t.Fatalf("%s: event %d: %x, live %x", how, offset, b, live.rooms["lobby"].events[offset])
			}
		}
	}
	r := live.again()
	r.Positions = start
	compare("from memory", n.resume("alice", r).caughtUp())
	compare("tail", n.tail("alice", &reprisev1.TailRequest{Room: "lobby"}))
	n.restart()
	compare("from disk", n.resume("alice", r).caughtUp())
	compare("tail from disk", n.tail("alice", &reprisev1.TailRequest{Room: "lobby"}))
}

// What is published while a replay is under way comes after the room's
// CaughtUp, which stands exactly at the head of the attach. The client reads
// nothing until it has been published.
func TestP3_NothingLiveBeforeCaughtUp(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby", "other")
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	s.hangUp()
	n.fill("alice", "lobby", 300, 4000) // more than the socket takes unread
	s = n.resume("alice", s.again()).greeted()
	live := n.say("alice", "lobby", "live")
	other := n.say("alice", "other", "live")
	c := s.until("CaughtUp of the room", func(f *frame) bool { return f.GetCaughtUp().GetRoom() == "lobby" }).GetCaughtUp()
	if c.GetOffset() != 302 || s.rooms["lobby"].last != 302 {
		t.Errorf("CaughtUp at %d with the client at %d, want 302", c.GetOffset(), s.rooms["lobby"].last)
	}
	s.caughtUp()
	s.reach("lobby", live.GetOffset())
	s.reach("other", other.GetOffset())
}

// One huge room holds back neither small rooms nor the one in focus.
func TestP2_HugeRoomHoldsNobodyBack(t *testing.T) {
	n := serve(t)
	small := names("small", 10)
	n.join("alice", append(small, "a-huge", "z-focus")...)
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	s.hangUp()
	n.fill("alice", "a-huge", 1500, 2000)
	n.fill("alice", "z-focus", 60, 1000)
	for _, r := range small {
		n.say("alice", r, "a", "b", "c")
	}
	r := s.again()
	r.Focus = []string{"z-focus"}
	s = n.resume("alice", r)
	first := s.until("events", func(f *frame) bool { return f.GetEvents() != nil }).GetEvents().GetRoom()
	if first != "z-focus" {
		t.Errorf("events of %s came before those of the room in focus", first)
	}
	huge := 0
	for waiting := 11; waiting > 0; {
		f := s.next()
		if f.GetEvents().GetRoom() == "a-huge" {
			huge += len(f.raw)
		}
		if c := f.GetCaughtUp(); c != nil && c.GetRoom() != "a-huge" {
			waiting--
		}
	}
	if huge > 256<<10 {
		t.Errorf("%d bytes of the huge room came before the small ones had caught up", huge)
	}
	s.caughtUp()
	s.held("a-huge", 2, 1502)
}

// Joining on one device brings the room to the others: RoomState, then the
// join event; leaving closes it after the leave event; joining again quickly
// opens it again.
func TestP7_MembershipReachesOtherDevices(t *testing.T) {
	n := serve(t)
	n.join("bob", "lobby")
	n.say("bob", "lobby", "before")
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	n.join("alice", "lobby") // event 4
	n.say("bob", "lobby", "seen")
	s.reach("lobby", 5)
	p := s.rooms["lobby"]
	if p.state == nil || !p.state.GetGained() || p.state.GetPosition().GetOffset() != 3 || p.offsets[0] != 4 || p.texts[1] != "seen" {
		t.Fatalf("state %v, offsets %v, texts %q", p.state, p.offsets, p.texts)
	}
	closed := func() *reprisev1.RoomClosed {
		return s.until("RoomClosed", func(f *frame) bool { return f.GetRoomClosed() != nil }).GetRoomClosed()
	}
	left := n.leave("alice", "lobby")
	n.say("bob", "lobby", "not for alice")
	c := closed()
	if c.GetOffset() != left || c.GetBy() != "alice" || c.GetReason() != reprisev1.RoomClosed_REASON_LEFT || p.last != left {
		t.Fatalf("RoomClosed %v with the client at %d, left at %d", c, p.last, left)
	}
	for range 20 {
		n.join("alice", "lobby")
		s.until("RoomState", func(f *frame) bool { return f.GetRoomState() != nil })
		left = n.leave("alice", "lobby")
		n.say("bob", "lobby", "not for alice either")
		if c := closed(); c.GetOffset() != left || s.rooms["lobby"].last != left {
			t.Fatalf("RoomClosed at %d with the client at %d, left at %d", c.GetOffset(), s.rooms["lobby"].last, left)
		}
	}
	n.join("alice", "lobby")
	head := n.say("bob", "lobby", "seen again").GetOffset()
	s.until("RoomState", func(f *frame) bool { return f.GetRoomState() != nil })
	s.reach("lobby", head)
}

// However fast somebody comes and goes, the stream shows each membership from
// its join to its leave and nothing between them.
func TestP7_QuickRejoins(t *testing.T) {
	n := serve(t)
	n.join("bob", "lobby")
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				n.say("bob", "lobby", "x")
			}
		}
	})
	var entitled [][2]uint64
	for range 100 {
		out, err := n.JoinRoom(as(t, "alice"), &reprisev1.JoinRoomRequest{Room: "lobby"})
		if err != nil {
			t.Fatal(err)
		}
		entitled = append(entitled, [2]uint64{out.GetMember().GetJoined(), n.leave("alice", "lobby")})
	}
	close(stop)
	wg.Wait()
	n.join("alice", "lobby")
	head := n.room("bob", "lobby").GetHead()
	entitled = append(entitled, [2]uint64{head, head})
	may := func(offset uint64) bool {
		for _, e := range entitled {
			if e[0] <= offset && offset <= e[1] {
				return true
			}
		}
		return false
	}
	for last := uint64(0); last < head; {
		f := s.next()
		for _, e := range f.GetEvents().GetEvents() {
			last = e.GetOffset()
			if !may(last) {
				t.Fatalf("event %d is outside of every membership %v", last, entitled)
			}
		}
	}
}

// Rooms gained and lost while away are named, with who and where.
func TestP7_GainedAndLostWhileAway(t *testing.T) {
	n := serve(t)
	n.join("alice", "kept", "lost", "back")
	n.join("bob", "kept", "gained")
	n.say("bob", "gained", "early")
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	s.hangUp()
	n.join("alice", "gained")
	left := n.leave("alice", "lost")
	n.leave("alice", "back")
	n.join("alice", "back")
	n.say("bob", "gained", "after")
	for _, how := range []string{"its own positions", "the server's"} {
		r := s.again()
		if how == "the server's" {
			r = s.keyOnly()
		}
		back := n.resume("alice", r).caughtUp()
		if w := back.welcome; w.GetRooms() != 3 || w.GetRoomsChanged() != 3 || w.GetOutcome() != reprisev1.Outcome_OUTCOME_EXACT {
			t.Errorf("%s: Welcome %v", how, w)
		}
		if c := back.rooms["lost"].closed; c.GetOffset() != left || c.GetBy() != "alice" || c.GetReason() != reprisev1.RoomClosed_REASON_LEFT {
			t.Errorf("%s: RoomClosed %v, left at %d", how, c, left)
		}
		g := back.rooms["gained"]
		if g.offsets[0] != 4 || g.texts[1] != "after" || g.state.GetPosition().GetOffset() != 3 {
			t.Errorf("%s: gained: offsets %v, texts %q, from %v", how, g.offsets, g.texts, g.state.GetPosition())
		}
		if how == "its own positions" && !g.state.GetGained() {
			t.Errorf("gained is not said to be")
		}
		if back.rooms["kept"] != nil && back.rooms["kept"].moved {
			t.Errorf("%s: kept did not move and is named", how)
		}
		back.hangUp()
	}
}

// No event ever, position 0, a room nobody speaks in: all of it resumes.
func TestP8_QuietRooms(t *testing.T) {
	n := serve(t)
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	s.hangUp()
	back := n.resume("alice", s.again()).caughtUp()
	if w := back.welcome; w.GetOutcome() != reprisev1.Outcome_OUTCOME_EXACT || w.GetRooms() != 0 || w.GetAttach() != 2 {
		t.Fatalf("Welcome %v", w)
	}
	back.hangUp()
	n.join("alice", "quiet")
	r := s.again()
	r.Positions = []*reprisev1.Position{{Room: "quiet"}}
	back = n.resume("alice", r).caughtUp()
	back.held("quiet", 0, 2)
	n.restart()
	back = n.resume("alice", back.again()).caughtUp()
	if w := back.welcome; w.GetOutcome() != reprisev1.Outcome_OUTCOME_EXACT || w.GetRoomsChanged() != 0 {
		t.Fatalf("Welcome %v", w)
	}
	head := n.say("alice", "quiet", "hello").GetOffset()
	back.reach("quiet", head)
}

// The handshake grows with the rooms that moved, not with the rooms.
func TestP13_HandshakeBytes(t *testing.T) {
	n := serve(t)
	cost := make(map[int]int)
	for _, count := range []int{5, 500} {
		user := fmt.Sprint("user", count)
		rooms := names(user, count)
		var wg sync.WaitGroup
		for w := range 10 {
			wg.Go(func() {
				for i := w; i < count; i += 10 {
					n.join(user, rooms[i])
				}
			})
		}
		wg.Wait()
		s := n.connect(user, &reprisev1.OpenRequest{}).caughtUp()
		n.say(user, rooms[0], "acked")
		s.reach(rooms[0], 3)
		s.ack(s.position(rooms[0]))
		checkpoint := s.checkpoint(1)
		s.hangUp()
		n.say(user, rooms[1], "news")
		r := s.keyOnly()
		r.Checkpoint = checkpoint
		back := n.resume(user, r).caughtUp()
		if len(back.rooms) != 1 || back.rooms[rooms[1]].texts[0] != "news" || int(back.welcome.GetRooms()) != count {
			t.Fatalf("Welcome %v, named %d rooms", back.welcome, len(back.rooms))
		}
		cost[count] = back.bytes
	}
	t.Logf("bytes until caught up: %v", cost)
	if cost[500] > cost[5]+50 {
		t.Errorf("resuming with 500 rooms takes %d bytes, with 5 %d", cost[500], cost[5])
	}
}

// A replay limit names what it leaves out.
func TestP2_ReplayLimit(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.ReplayLimit = 10 })
	n.join("alice", "lobby")
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	s.hangUp()
	n.fill("alice", "lobby", 30, 10)
	for _, limit := range []uint32{0, 5, 100} {
		r := s.again()
		r.ReplayLimit = limit
		back := n.resume("alice", r).caughtUp()
		want := uint64(10)
		if limit == 5 {
			want = 5
		}
		p := back.rooms["lobby"]
		back.held("lobby", 2, 32)
		if len(p.gaps) != 1 || p.gaps[0].GetReason() != reprisev1.GapReason_GAP_REASON_REPLAY_LIMIT || !p.gaps[0].GetRecoverable() ||
			uint64(len(p.offsets)) != want || back.welcome.GetOutcome() != reprisev1.Outcome_OUTCOME_WITH_GAPS || back.welcome.GetEventsToReplay() != want {
			t.Errorf("limit %d: %d events, gaps %v, Welcome %v", limit, len(p.offsets), p.gaps, back.welcome)
		}
		back.hangUp()
	}
}

// A new session starts at the heads, or with the newest events if it asks.
func TestP2_OpenWithHistory(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby", "short")
	n.fill("alice", "lobby", 30, 10)
	s := n.open("alice", &reprisev1.OpenRequest{History: 10}).caughtUp()
	s.held("lobby", 22, 32)
	s.held("short", 0, 2)
	if s.welcome.GetEventsToReplay() != 12 || s.welcome.GetRoomsChanged() != 2 {
		t.Errorf("Welcome %v", s.welcome)
	}
	s = n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	if s.rooms["lobby"].last != 32 || s.rooms["lobby"].moved {
		t.Error("a new session does not start at the head")
	}
	s.quiet(50 * time.Millisecond)
}

// Rooms that are joined and made during an attach are either in it or come
// live: no spurious Rewind, no failure.
func TestP7_JoinsDuringAttach(t *testing.T) {
	n := serve(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					n.join("alice", fmt.Sprintf("room-%d-%d", w, i))
					if i > 40 {
						return
					}
				}
			}
		})
	}
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	for range 40 {
		s.hangUp()
		s = n.resume("alice", s.again()).caughtUp()
		for name, p := range s.rooms {
			if len(p.rewinds) > 0 || len(p.gaps) > 0 || p.closed != nil {
				t.Errorf("%s: rewinds %v, gaps %v, closed %v", name, p.rewinds, p.gaps, p.closed)
			}
		}
	}
	close(stop)
	wg.Wait()
}

// A client that has positions and no session names neither a session nor a key.
// It goes on from its positions, and a room without one is told as a Gap, not
// left out.
func TestP2_ResumeWithPositionsAndNoSession(t *testing.T) {
	for _, door := range []string{"Connect", "Resume"} {
		n := serve(t)
		n.join("alice", "held")
		n.join("bob", "held")
		n.say("bob", "held", "one", "two")
		s := n.connect("alice", &reprisev1.OpenRequest{History: 100}).caughtUp()
		s.hangUp()
		_ = s.end()
		n.say("bob", "held", "three")
		n.join("alice", "elsewhere")
		n.join("bob", "elsewhere")
		n.say("bob", "elsewhere", "four")

		r := &reprisev1.ResumeRequest{InstanceId: "i1", Positions: s.positions()}
		var back *stream
		if door == "Connect" {
			back = n.connect("alice", r).caughtUp()
		} else {
			back = n.resume("alice", r).caughtUp()
		}
		if w := back.welcome; w.GetOutcome() != reprisev1.Outcome_OUTCOME_REBUILT || w.GetSessionId() == "" || w.GetSessionId() == s.welcome.GetSessionId() {
			t.Errorf("%s: %v", door, w)
		}
		if held := back.rooms["held"]; len(held.gaps) != 0 || len(held.offsets) != 1 {
			t.Errorf("%s: of the room that was held %d events and %v came, want the one that is missing", door, len(held.offsets), held.gaps)
		}
		head := n.room("alice", "elsewhere").GetHead()
		if gaps := back.rooms["elsewhere"].gaps; len(gaps) != 1 || gaps[0].GetFirst() != 1 || gaps[0].GetLast() != head ||
			gaps[0].GetReason() != reprisev1.GapReason_GAP_REASON_POSITION_UNKNOWN || !gaps[0].GetRecoverable() {
			t.Errorf("%s: the room without a position came with %v, want everything up to %d as unknown", door, gaps, head)
		}
	}
}
