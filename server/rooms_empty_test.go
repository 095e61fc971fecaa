package server_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
	"github.com/reprise-chat/reprise/server/internal/store"
	"github.com/reprise-chat/reprise/server/internal/store/pebble"
)

// remade waits until a name is free again, and makes a room of that name.
func (n *node) remade(user, name string) {
	n.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		_, err := n.CreateRoom(as(n.t, user), &reprisev1.CreateRoomRequest{Room: name})
		if err == nil {
			return
		}
		refused(n.t, err, codes.AlreadyExists, "ROOM_EXISTS")
		if time.Now().After(deadline) {
			n.t.Fatalf("the name %s does not become free", name)
		}
	}
}

// A room of a name that another one had has other incarnations: whoever held
// positions of the old one is rewound to the beginning and is given all of the
// new one, within one start of the server and after the next.
func TestP2_RoomMadeAgainRewinds(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart ", restart), func(t *testing.T) {
			n := serve(t, func(o *server.Options) { o.EmptyRooms = 20 * time.Millisecond })
			n.join("alice", "lobby", "other")
			n.join("bob", "lobby")
			n.fill("alice", "lobby", 10, 10)
			s := n.open("alice", &reprisev1.OpenRequest{History: 100}).caughtUp()
			s.reach("lobby", 13)
			request := s.again()
			s.hangUp()
			n.leave("alice", "lobby")
			n.leave("bob", "lobby")
			if restart {
				n.restart()
			}
			n.remade("carol", "lobby")
			n.fill("carol", "lobby", 20, 10) // past what alice holds
			n.join("alice", "lobby")
			back := n.resume("alice", request).caughtUp()
			at := back.rooms["lobby"]
			if len(at.rewinds) != 1 || at.rewinds[0].GetTo() != 0 {
				t.Fatalf("Rewinds %v, want one to 0", at.rewinds)
			}
			back.held("lobby", 0, 23)
			if back.rooms["other"].moved {
				t.Error("the other room moved")
			}
		})
	}
}

// TestEmptyRoomsGo: a room without members goes with all of it, also when the
// server was restarted meanwhile; one with a member, and one that is joined
// again, stay; and so do all where an operator says so.
func TestEmptyRoomsGo(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.EmptyRooms = -1 })
	n.join("alice", "left", "again", "stays")
	n.fill("alice", "left", 50, 100)
	for _, room := range []string{"left", "again"} {
		n.leave("alice", room)
	}
	_, err := n.CreateRoom(as(t, "bob"), &reprisev1.CreateRoomRequest{Room: "left"})
	refused(t, err, codes.AlreadyExists, "ROOM_EXISTS")
	n.join("alice", "again")
	n.stop()
	n.opts.EmptyRooms = 20 * time.Millisecond
	n.start()
	n.remade("bob", "left")
	if r := n.room("bob", "left"); r.GetHead() != 2 || r.GetCreator() != "bob" {
		t.Errorf("the new room is %v", r)
	}
	for _, room := range []string{"again", "stays"} {
		if r := n.room("alice", room); r.GetMembers() != 1 {
			t.Errorf("%s is %v", room, r)
		}
	}
	n.stop()
	report, err := server.Check(t.Context(), n.opts.Dir, nil)
	if err != nil || report.Damaged() || report.Rooms != 3 || report.Events != 2+4+2 {
		t.Errorf("checked: %+v, %v", report, err)
	}
	n.start()
}

// A session that was away when its user left, and the room was removed since,
// is told that it left and where.
func TestP7_LostRoomWasRemoved(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.EmptyRooms = 20 * time.Millisecond })
	n.join("alice", "lobby", "other")
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	request := s.again()
	s.hangUp()
	left := n.leave("alice", "lobby")
	n.remade("bob", "lobby")
	back := n.resume("alice", request).caughtUp()
	closed := back.rooms["lobby"].closed
	if closed.GetReason() != reprisev1.RoomClosed_REASON_LEFT || closed.GetOffset() != left || closed.GetBy() != "alice" {
		t.Errorf("RoomClosed %v, left at %d", closed, left)
	}
}

// counting counts the memberships that are read.
type counting struct {
	store.Store
	read atomic.Int64
}

func (c *counting) UserRooms(ctx context.Context, user string) ([]store.UserRoom, uint64, error) {
	rooms, version, err := c.Store.UserRooms(ctx, user)
	c.read.Add(int64(len(rooms)) + 1)
	return rooms, version, err
}

// TestJoinsReadNoMemberships: whatever a user has joined and left before, the
// next join reads none of it, and an attach reads what is current and a bounded
// number of ends.
func TestJoinsReadNoMemberships(t *testing.T) {
	st, err := pebble.Open(t.TempDir(), pebble.Options{Reserve: -1, Sync: pebble.SyncNever})
	if err != nil {
		t.Fatal(err)
	}
	c := &counting{Store: st}
	n := serve(t, func(o *server.Options) { o.Store = c })
	ctx := as(t, "alice")
	for i := range store.MaxEnded + 200 {
		room := fmt.Sprint("room", i)
		if _, err := n.JoinRoom(ctx, &reprisev1.JoinRoomRequest{Room: room}); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			continue // stays
		}
		if _, err := n.LeaveRoom(ctx, &reprisev1.LeaveRoomRequest{Room: room}); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.read.Load(); got != 0 {
		t.Errorf("joining and leaving read %d memberships", got)
	}
	n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	if got := c.read.Load(); got > store.MaxEnded+12+1 {
		t.Errorf("an attach read %d memberships", got)
	}
}

// TestRoomsPerUserIsKept counts what a user is in now, not what it was in.
func TestRoomsPerUserIsKept(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.Limits.RoomsPerUser = 3 })
	for i := range 10 {
		n.join("alice", fmt.Sprint("passing", i))
		n.leave("alice", fmt.Sprint("passing", i))
	}
	n.join("alice", "a", "b", "c")
	n.join("alice", "a") // nothing to do
	_, err := n.JoinRoom(as(t, "alice"), &reprisev1.JoinRoomRequest{Room: "d"})
	refused(t, err, codes.ResourceExhausted, "TOO_MANY_ROOMS")
	if retryOf(err) != 0 {
		t.Error("waiting does not cure it, and it says when to come again")
	}
	_, err = n.CreateRoom(as(t, "alice"), &reprisev1.CreateRoomRequest{Room: "d"})
	refused(t, err, codes.ResourceExhausted, "TOO_MANY_ROOMS")
	n.leave("alice", "b")
	n.restart()
	n.join("alice", "d")
	if _, err := n.JoinRoom(as(t, "alice"), &reprisev1.JoinRoomRequest{Room: "e"}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a fourth room after a restart: %v", err)
	}
}

// TestPositionsOfLostRoomsGo: what a session holds of rooms that its user left
// is removed once the client was told, so that a resume does not read more with
// each room that was ever joined; and one whose end is not remembered any more
// is told of too, once.
func TestP7_PositionsOfLostRoomsGo(t *testing.T) {
	st, err := pebble.Open(t.TempDir(), pebble.Options{Reserve: -1, Sync: pebble.SyncNever})
	if err != nil {
		t.Fatal(err)
	}
	n := serve(t, func(o *server.Options) { o.Store = st })
	n.join("alice", "stays", "early", "late")
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	s.hangUp()
	positions := func(want int) {
		t.Helper()
		ps, err := st.Positions(t.Context(), s.welcome.GetSessionId())
		if err != nil || len(ps) != want {
			t.Fatalf("positions %v, %v; want %d", ps, err, want)
		}
	}
	positions(3)
	n.leave("alice", "early")
	ctx := as(t, "alice")
	for i := range store.MaxEnded { // pushes it out of what is remembered
		room := fmt.Sprint("passing", i)
		if _, err := n.JoinRoom(ctx, &reprisev1.JoinRoomRequest{Room: room}); err != nil {
			t.Fatal(err)
		}
		if _, err := n.LeaveRoom(ctx, &reprisev1.LeaveRoomRequest{Room: room}); err != nil {
			t.Fatal(err)
		}
	}
	left := n.leave("alice", "late")
	resume := func() *stream {
		t.Helper()
		// Without positions: the server has them.
		next := n.resume("alice", &reprisev1.ResumeRequest{SessionId: s.welcome.GetSessionId(), ResumeKey: s.welcome.GetResumeKey()}).caughtUp()
		next.hangUp()
		s = next
		return next
	}
	told := resume()
	if c := told.rooms["early"].closed; c == nil || c.GetReason() != reprisev1.RoomClosed_REASON_UNSPECIFIED {
		t.Errorf("of the end that is not remembered it is told %v", c)
	}
	if c := told.rooms["late"].closed; c.GetReason() != reprisev1.RoomClosed_REASON_LEFT || c.GetOffset() != left {
		t.Errorf("of the end that is remembered it is told %v", c)
	}
	positions(3) // the Welcome may have been lost
	again := resume()
	if again.rooms["early"] != nil || again.rooms["late"] != nil {
		t.Errorf("it is told again: %v, %v", again.rooms["early"], again.rooms["late"])
	}
	positions(1)
}
