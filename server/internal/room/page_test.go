package room_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/store"
	"github.com/reprise-chat/reprise/server/internal/store/pebble"
)

// countingStore counts the reads of events.
type countingStore struct {
	store.Store
	reads atomic.Int64
}

func (s *countingStore) OpenLog(ctx context.Context, name string) (store.Log, error) {
	l, err := s.Store.OpenLog(ctx, name)
	return countingLog{l, s}, err
}

type countingLog struct {
	store.Log
	s *countingStore
}

func (l countingLog) Read(ctx context.Context, after, to uint64, maxBytes int, buf []byte) (store.Page, error) {
	l.s.reads.Add(1)
	return l.Log.Read(ctx, after, to, maxBytes, buf)
}

// Readers that lack the same events and come at once: the store is read once
// for all of them as long as its pages fit into memory, and where they do not,
// each still gets everything, in order, the same bytes.
func TestP3_ColdReadersShareReads(t *testing.T) {
	const events, readers = 2000, 32
	st, err := pebble.Open("data", pebble.Options{FS: vfs.NewMem(), Reserve: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	fillRoom(t, st, events)
	for _, c := range []struct {
		name      string
		pageBytes int
		shared    bool
	}{{"all pages fit", 0, true}, {"no page fits", 1, false}} {
		t.Run(c.name, func(t *testing.T) {
			counted := &countingStore{Store: st}
			h := room.NewHub(counted, room.Options{PageBytes: c.pageBytes})
			defer h.Close()
			r := acquire(t, h, "lobby")
			all := make([][]byte, readers)
			var wg sync.WaitGroup
			for i := range readers {
				wg.Go(func() { all[i] = readAll(t, r, events+1) })
			}
			wg.Wait()
			for i := range all {
				if !bytes.Equal(all[i], all[0]) {
					t.Fatalf("reader %d got other bytes than reader 0", i)
				}
			}
			pages := int64(len(all[0])>>14) + 1 // each has more than half of 32 KiB
			if n := counted.reads.Load(); c.shared && n > pages {
				t.Errorf("%d readers of %d bytes cost %d reads of the store", readers, len(all[0]), n)
			}
		})
	}
}

// fillRoom publishes in a hub of its own, so that no tail is left.
func fillRoom(t *testing.T, st store.Store, events int) {
	t.Helper()
	h := room.NewHub(st, room.Options{CreateOnJoin: true})
	defer h.Close()
	r, err := h.Acquire(t.Context(), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	if _, err := r.Join(t.Context(), "alice", room.Checks{}); err != nil {
		t.Fatal(err)
	}
	for i := range events {
		if _, err := publish(t.Context(), r, fmt.Sprintf("%0100d", i), nil); err != nil {
			t.Fatal(err)
		}
	}
}

func readAll(t *testing.T, r *room.Room, head uint64) (all []byte) {
	var c room.Cursor
	c.Init(r, make(news, 1), 0)
	defer c.Close()
	for held := uint64(0); held < head; {
		b, err := c.Next(t.Context(), 0, 16<<10)
		if err != nil || b.First != held+1 || b.Last < b.First {
			t.Errorf("after %d: [%d, %d], %v", held, b.First, b.Last, err)
			return nil
		}
		held = b.Last
		all = append(all, b.Data...)
	}
	return all
}
