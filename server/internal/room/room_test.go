package room_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/timestamppb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/store"
	"github.com/reprise-chat/reprise/server/internal/store/pebble"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func hub(t testing.TB, o room.Options) *room.Hub {
	t.Helper()
	st, err := pebble.Open("data", pebble.Options{FS: vfs.NewMem(), Reserve: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	o.CreateOnJoin = true
	h := room.NewHub(st, o)
	t.Cleanup(func() {
		h.Close()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func acquire(t testing.TB, h *room.Hub, name string) *room.Room {
	t.Helper()
	r, err := h.Acquire(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Release)
	return r
}

func publish(ctx context.Context, r *room.Room, text string, fence func() error) (room.Receipt, error) {
	type answer struct {
		room.Receipt
		error
	}
	done := make(chan answer, 1)
	r.Publish(ctx, room.Publish{Fence: fence, Event: &reprisev1.Event{
		Time: timestamppb.Now(), Sender: "alice",
		Body: &reprisev1.Event_Message{Message: &reprisev1.Message{Text: text}},
	}}, func(rec room.Receipt, err error) { done <- answer{rec, err} })
	a := <-done
	return a.Receipt, a.error
}

// news wakes a reader.
type news chan struct{}

func (n news) Wake(int) {
	select {
	case n <- struct{}{}:
	default:
	}
}

// Readers at every speed, while others publish and retention removes what is
// old: what each is handed covers the log from where it began, in order.
func TestP2_CursorsUnderRetention(t *testing.T) {
	const events = 3000
	h := hub(t, room.Options{Retention: store.Retention{MaxEvents: 300}, TrimEvery: time.Millisecond})
	r := acquire(t, h, "lobby")
	if _, err := r.Join(t.Context(), "alice", room.Checks{}); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	trimmed := make([]uint64, 6)
	for i := range 6 {
		readers.Go(func() {
			wake := make(news, 1)
			var c room.Cursor
			c.Init(r, wake, 0)
			defer c.Close()
			for held := uint64(0); held < events+2; {
				b, err := c.Next(t.Context(), 0, 1<<(4+2*i))
				if err != nil {
					t.Error(err)
					return
				}
				if b.Last == 0 {
					<-wake
					continue
				}
				if b.First != held+1 || b.Last < b.First || b.Incarnation == "" {
					t.Errorf("reader %d holds %d and is handed [%d, %d] of %q", i, held, b.First, b.Last, b.Incarnation)
					return
				}
				if held = b.Last; b.Trimmed {
					trimmed[i] += b.Last - b.First + 1
					continue
				}
				es, err := event.DecodeAll(b.Data)
				if err != nil || es[0].GetOffset() != b.First || es[len(es)-1].GetOffset() != b.Last || uint64(len(es)) != b.Last-b.First+1 {
					t.Errorf("reader %d: [%d, %d] holds %d events, %v", i, b.First, b.Last, len(es), err)
					return
				}
			}
		})
	}
	var writers sync.WaitGroup
	for range 6 {
		writers.Go(func() {
			for i := range events / 6 {
				if _, err := publish(t.Context(), r, fmt.Sprint(i), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	readers.Wait()
	t.Logf("offsets told to be gone, by reader: %v", trimmed)
}

// An event that is refused last leaves no hole, and the one after it takes its
// offset.
func TestP5_FencedLeavesNoHole(t *testing.T) {
	r := acquire(t, hub(t, room.Options{}), "lobby")
	if _, err := r.Join(t.Context(), "alice", room.Checks{}); err != nil {
		t.Fatal(err)
	}
	refusal := errors.New("fenced")
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			_, err := publish(t.Context(), r, "x", func() error {
				if i%2 == 0 {
					return refusal
				}
				return nil
			})
			if (i%2 == 0) != errors.Is(err, refusal) {
				t.Errorf("publish %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if info, err := r.Info(); err != nil || info.Head != 27 {
		t.Errorf("head %d, %v", info.Head, err)
	}
}

// Reach waits for what the store shows already, and for nothing else.
func TestP2_Reach(t *testing.T) {
	r := acquire(t, hub(t, room.Options{}), "lobby")
	if _, err := r.Join(t.Context(), "alice", room.Checks{}); err != nil {
		t.Fatal(err)
	}
	if err := r.Reach(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	reached := make(chan error)
	go func() { reached <- r.Reach(t.Context(), 4) }()
	for range 2 {
		if _, err := publish(t.Context(), r, "x", nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-reached; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Reach(ctx, 5); !errors.Is(err, context.Canceled) {
		t.Errorf("Reach of what is not there: %v", err)
	}
}

// However many join at once, in whatever way, each is a member once.
func TestP7_ConcurrentJoins(t *testing.T) {
	r := acquire(t, hub(t, room.Options{}), "lobby")
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			if _, err := r.Join(t.Context(), fmt.Sprint("user", i%4), room.Checks{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if info, err := r.Info(); err != nil || info.Members != 4 || info.Head != 5 {
		t.Errorf("%d members, head %d, %v", info.Members, info.Head, err)
	}
}

// A member named at a room's creation may join while that is under way, and is
// told of the membership that it makes.
func TestP7_JoinDuringCreation(t *testing.T) {
	h := hub(t, room.Options{})
	for i := range 100 {
		r := acquire(t, h, fmt.Sprint("room", i))
		begun := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			meta := store.Meta{Name: r.Name(), Creator: "alice", Created: time.Now(), Private: true}
			if _, err := r.Create(t.Context(), meta, []room.Guest{{User: "bob", Direct: true}}, room.Checks{Fence: func() error { close(begun); return nil }}); err != nil {
				t.Error(err)
			}
		})
		<-begun
		if c, err := r.Join(t.Context(), "bob", room.Checks{}); err != nil || !c.Already || c.Offset != 3 {
			t.Errorf("bob's join: %+v, %v", c, err)
		}
		wg.Wait()
	}
}
