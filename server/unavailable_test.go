package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
	"github.com/reprise-chat/reprise/server/internal/store"
	"github.com/reprise-chat/reprise/server/internal/store/pebble"
)

// badDisk is a store that cannot read some rooms for a while.
type badDisk struct {
	store.Store
	mu      sync.Mutex
	opening map[string]error // rooms whose logs do not open
	reading map[string]error // rooms whose events cannot be read
}

func (s *badDisk) set(of *map[string]error, room string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *of == nil {
		*of = make(map[string]error)
	}
	(*of)[room] = err
}

func (s *badDisk) get(of *map[string]error, room string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return (*of)[room]
}

func (s *badDisk) OpenLog(ctx context.Context, room string) (store.Log, error) {
	if err := s.get(&s.opening, room); err != nil {
		return nil, err
	}
	l, err := s.Store.OpenLog(ctx, room)
	return badLog{l, s, room}, err
}

type badLog struct {
	store.Log
	s    *badDisk
	room string
}

func (l badLog) Read(ctx context.Context, after, to uint64, maxBytes int, buf []byte) (store.Page, error) {
	if err := l.s.get(&l.s.reading, l.room); err != nil {
		return store.Page{}, err
	}
	return l.Log.Read(ctx, after, to, maxBytes, buf)
}

var (
	errEIO     = fmt.Errorf("%w: input/output error", store.ErrRead)
	errDamaged = &store.CorruptError{Room: "bad", Offset: 3, Detail: "checksum mismatch"}
)

// onBadDisk starts a server over what another one left in dir.
func onBadDisk(t *testing.T, dir string) (*node, *badDisk) {
	t.Helper()
	st, err := pebble.Open(dir, pebble.Options{Reserve: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	disk := &badDisk{Store: st}
	return serve(t, func(o *server.Options) {
		o.Store, o.Logger = disk, slog.New(slog.DiscardHandler)
	}), disk
}

// threeRooms returns a directory in which alice is in three rooms with events
// beyond her stored positions, and the session that has those.
func threeRooms(t *testing.T) (dir string, again *reprisev1.ResumeRequest) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	n := serve(t, func(o *server.Options) { o.Dir = dir })
	n.join("alice", "bad", "good", "other")
	s := n.connect("alice", &reprisev1.OpenRequest{}).caughtUp()
	for _, room := range []string{"bad", "good"} {
		n.say("alice", room, "one", "two")
		s.reach(room, 4)
	}
	s.ack(s.position("bad"), s.position("good"), s.position("other"))
	s.checkpoint(1)
	n.say("alice", "bad", "three", "four", "five")
	n.say("alice", "good", "three")
	n.stop()
	return dir, s.again()
}

// TestP2_RoomThatCannotBeOpened: an attach does not fail because one room does.
// The others are live, the room is named, and comes when it can be read, with
// everything.
func TestP2_RoomThatCannotBeOpened(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		how  func(*node, *reprisev1.ResumeRequest) *stream
		// from is where the room starts when it is back, last the head then.
		from uint64
	}{
		{"resume from the client's positions", errEIO, func(n *node, r *reprisev1.ResumeRequest) *stream { return n.resume("alice", r) }, 4},
		{"resume from the stored ones", errDamaged, func(n *node, r *reprisev1.ResumeRequest) *stream {
			r.Positions = nil
			return n.resume("alice", r)
		}, 4},
		{"resume on Connect", errEIO, func(n *node, r *reprisev1.ResumeRequest) *stream { return n.connect("alice", r) }, 4},
		{"open", errEIO, func(n *node, _ *reprisev1.ResumeRequest) *stream { return n.open("alice", &reprisev1.OpenRequest{}) }, 7},
		{"open with history", errDamaged, func(n *node, _ *reprisev1.ResumeRequest) *stream {
			return n.open("alice", &reprisev1.OpenRequest{History: 2})
		}, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, r := threeRooms(t)
			n, disk := onBadDisk(t, dir)
			disk.set(&disk.opening, "bad", c.err)
			s := c.how(n, r).caughtUp()
			if got := s.welcome.GetRooms(); got != 3 {
				t.Errorf("Welcome: %d rooms", got)
			}
			if p := s.rooms["bad"]; p == nil || !p.unavailable {
				t.Fatalf("the room that cannot be opened was not named: %+v", p)
			}
			n.say("alice", "good", "live") // the others go on
			s.reach("good", 6)
			_, err := n.SendMessage(as(t, "alice"), &reprisev1.SendMessageRequest{Room: "bad", Text: "in vain"})
			refused(t, err, codes.Unavailable, "ROOM_UNAVAILABLE")
			refused(t, n.tail("alice", &reprisev1.TailRequest{Room: "bad"}).end(), codes.Unavailable, "ROOM_UNAVAILABLE")
			if got := n.figures()["reprise_rooms_unavailable_total"]; got != 1 {
				t.Errorf("%v rooms were unavailable", got)
			}

			disk.set(&disk.opening, "bad", nil)
			s.until("the room", func(f *frame) bool { return f.GetRoomState().GetRoom().GetName() == "bad" })
			if got := s.rooms["bad"].state.GetPosition().GetOffset(); got != c.from {
				t.Errorf("the room starts at %d, want %d", got, c.from)
			}
			s.until("its end", func(f *frame) bool { return f.GetCaughtUp().GetRoom() == "bad" })
			s.held("bad", c.from, 7)
			n.say("alice", "bad", "live")
			s.reach("bad", 8)
			s.held("bad", c.from, 8)
			s.hangUp()
			// The session is as good as any other.
			again := n.resume("alice", s.keyOnly()).caughtUp()
			if got := again.rooms["bad"]; c.from == 4 && (got == nil || got.last != 8 || len(got.gaps) > 0) {
				t.Errorf("resumed from what is stored: %+v", got)
			}
		})
	}
}

// TestP2_RoomThatCannotBeRead: an error on reading one room's events ends
// neither the stream nor the attach. The room is named, and goes on where it
// was.
func TestP2_RoomThatCannotBeRead(t *testing.T) {
	for name, err := range map[string]error{"input/output error": errEIO, "a damaged block": errDamaged} {
		t.Run(name, func(t *testing.T) {
			dir, r := threeRooms(t)
			n, disk := onBadDisk(t, dir)
			disk.set(&disk.reading, "bad", err)
			s := n.resume("alice", r).caughtUp()
			if !s.rooms["bad"].unavailable || s.rooms["good"].last != 5 {
				t.Fatalf("bad: %+v, good: %+v", s.rooms["bad"], s.rooms["good"])
			}
			n.say("alice", "bad", "six") // it can be written
			n.say("alice", "good", "live")
			s.reach("good", 6)
			refused(t, n.tail("alice", &reprisev1.TailRequest{Room: "bad", After: 4, Follow: true}).end(), codes.Unavailable, "ROOM_UNAVAILABLE")
			_, listed := n.ListEvents(as(t, "alice"), &reprisev1.ListEventsRequest{Room: "bad"})
			refused(t, listed, codes.Unavailable, "ROOM_UNAVAILABLE")

			disk.set(&disk.reading, "bad", nil)
			s.until("the room's end", func(f *frame) bool { return f.GetCaughtUp().GetRoom() == "bad" })
			s.reach("bad", 8)
			s.held("bad", 4, 8)
			n.say("alice", "bad", "live")
			s.reach("bad", 9)
			if n := len(s.rooms["bad"].gaps) + len(s.rooms["bad"].rewinds); n != 0 {
				t.Errorf("%d gaps and rewinds", n)
			}
		})
	}
}

// TestP7_LeavingARoomThatCannotBeRead: the end of a membership comes after
// everything that belongs to it.
func TestP7_LeavingARoomThatCannotBeRead(t *testing.T) {
	dir, r := threeRooms(t)
	n, disk := onBadDisk(t, dir)
	disk.set(&disk.reading, "bad", errEIO)
	s := n.resume("alice", r).caughtUp()
	left := n.leave("alice", "bad")
	n.say("alice", "good", "live")
	s.reach("good", 6)
	disk.set(&disk.reading, "bad", nil)
	s.until("RoomClosed", func(f *frame) bool { return f.GetRoomClosed().GetRoom() == "bad" })
	s.held("bad", 4, left)
}
