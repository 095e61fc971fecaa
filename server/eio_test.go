package server_test

import (
	"log/slog"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
	"github.com/reprise-chat/reprise/server/internal/store/pebble"
)

// TestP2_ReadErrorsComeAndGo has the disk fail in the middle of a resume, each time
// a little later: at the reading of the session, of the memberships, of a room, of events.
// The resume is refused with what waiting cures, or goes on with the rooms that
// can be read; when the disk reads again, everything is there.
func TestP2_ReadErrorsComeAndGo(t *testing.T) {
	mem := vfs.NewMem()
	open := func(fs vfs.FS) func(*server.Options) {
		st, err := pebble.Open("data", pebble.Options{FS: fs, Reserve: -1, CacheBytes: 1, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return func(o *server.Options) { o.Store, o.Logger = st, slog.New(slog.DiscardHandler) }
	}
	n := serve(t, open(mem))
	rooms := names("room", 5)
	n.join("alice", rooms...)
	s := n.connect("alice", &reprisev1.OpenRequest{}).caughtUp()
	again := s.again()
	start := again.Positions
	for _, room := range rooms {
		n.fill("alice", room, 20, 2000)
	}
	n.stop()

	var failing atomic.Bool
	var reads, from atomic.Int64 // since the disk fails; the first that does
	var refusals, unavailable int
	faulty := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileReadAt && failing.Load() && reads.Add(1) > from.Load() {
			return syscall.EIO
		}
		return nil
	}))
	for round := range int64(40) {
		// What was read is in memory, so each round is another server.
		n := serve(t, open(faulty))
		reads.Store(0)
		from.Store(5 * round)
		failing.Store(true)
		s := n.resume("alice", again)
		if f, err := s.recv(); err != nil {
			refusals++
			if code, why := status.Code(err), reasonOf(err); code != codes.Unavailable || why != "STORE_UNAVAILABLE" {
				t.Errorf("refused with %v %s: %v", code, why, err)
			}
			failing.Store(false)
			s = n.resume("alice", again)
		} else if f.GetWelcome().GetRooms() != uint32(len(rooms)) {
			t.Errorf("%d rooms", f.GetWelcome().GetRooms())
		}
		s.caughtUp()
		for _, p := range s.rooms {
			if p.unavailable {
				unavailable++
			}
		}
		failing.Store(false)
		for i, room := range rooms {
			from := again.GetPositions()[i].GetOffset()
			s.reach(room, from+20)
			s.held(room, from, from+20)
		}
		again = s.again()
		again.Positions = start // all of it once more
		n.stop()
	}
	t.Logf("%d resumes refused, %d rooms unavailable", refusals, unavailable)
	if refusals == 0 || unavailable == 0 {
		t.Error("too little was unreadable for this to be a test")
	}
}
