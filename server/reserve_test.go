package server_test

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
	"github.com/reprise-chat/reprise/server/internal/store/pebble"
)

// TestP1_DiskReserve crosses the reserve while many publish to one room: while
// the disk is full everybody opens and resumes with all rooms, and when it has
// room again the busy room takes writes.
func TestP1_DiskReserve(t *testing.T) {
	mem := vfs.NewMem()
	const gib = 1 << 30
	free := func(n uint64) { mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: n, TotalBytes: 10 * gib}) }
	free(9 * gib)
	slow := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			time.Sleep(3 * time.Millisecond) // what a sync takes on an SSD
		}
		return nil
	}))
	st, err := pebble.Open("data", pebble.Options{FS: slow, Reserve: gib, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	n := serve(t, func(o *server.Options) { o.Store = st })
	n.join("alice", "lobby", "quiet")
	n.join("bob", "lobby", "quiet")
	reader := n.open("bob", &reprisev1.OpenRequest{}).caughtUp()
	start := reader.rooms["lobby"].last

	stop := make(chan struct{})
	var published sync.WaitGroup
	for i := range 64 {
		published.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-stop:
					return
				default:
				}
				_, err := n.SendMessage(as(t, "alice"), &reprisev1.SendMessageRequest{Room: "lobby", Text: fmt.Sprint(i, " ", k)})
				if err != nil {
					if code, why := status.Code(err), reasonOf(err); code != codes.ResourceExhausted || why != "DISK_RESERVE" {
						t.Errorf("%v %s: %v", code, why, err)
						return
					}
					time.Sleep(5 * time.Millisecond)
				}
			}
		})
	}
	for range 2 {
		free(gib / 2)
		eventually(t, "writes are refused", func() bool { return st.Writable() != nil })
		wantRooms(t, n)
		free(9 * gib)
		eventually(t, "writes are taken", func() bool { return st.Writable() == nil })
		n.say("alice", "lobby", "after")
		n.say("alice", "quiet", "after")
		wantRooms(t, n)
	}
	close(stop)
	published.Wait()
	head := n.room("alice", "lobby").GetHead()
	reader.reach("lobby", head)
	reader.held("lobby", start, head)
}

// wantRooms has both users open and resume with both rooms.
func wantRooms(t *testing.T, n *node) {
	t.Helper()
	for _, user := range []string{"alice", "bob"} {
		s := n.open(user, &reprisev1.OpenRequest{}).caughtUp()
		again := n.resume(user, s.again()).caughtUp()
		for _, w := range []*reprisev1.Welcome{s.welcome, again.welcome} {
			if w.GetRooms() != 2 {
				t.Errorf("%s has %d rooms", user, w.GetRooms())
			}
		}
		s.hangUp()
		again.hangUp()
	}
}
