package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// trimTo trims and checks that oldest is what is left, then and later.
func (r *room) trimTo(h Harness, b store.Bounds, oldest uint64) {
	r.tb.Helper()
	if st := r.trim(b); st.Oldest != oldest || st.Head != r.head() {
		r.tb.Fatalf("Trim(%+v): oldest %d, head %d; want %d, %d", b, st.Oldest, st.Head, oldest, r.head())
	}
	r.check(oldest)
	r.reopen(h.Reopen())
	r.check(oldest)
	// A reader from before starts at the oldest.
	if oldest > 1 && oldest <= r.head() {
		p, err := r.log.Read(r.tb.Context(), 0, r.head(), 1, nil)
		if err != nil || p.First != oldest || p.Last != oldest {
			r.tb.Fatalf("first read after the trim: [%d, %d], %v; want %d", p.First, p.Last, err, oldest)
		}
	}
	if p, err := r.log.Read(r.tb.Context(), 0, oldest-1, 1<<20, nil); err != nil || p.Last != 0 {
		r.tb.Fatalf("read of what was trimmed: [%d, %d], %v", p.First, p.Last, err)
	}
}

func testTrimEvents(t *testing.T, h Harness) {
	r := newRoom(t, h.Store, "r")
	r.post(29)
	r.trimTo(h, store.Bounds{}, 1)
	r.trimTo(h, store.Bounds{MaxEvents: 30}, 1)
	r.trimTo(h, store.Bounds{MaxEvents: 29}, 2)
	r.trimTo(h, store.Bounds{MaxEvents: 10}, 21)
	r.trimTo(h, store.Bounds{MaxEvents: 20}, 21) // never grows back
	r.post(5)
	r.trimTo(h, store.Bounds{MaxEvents: 10}, 26)
	r.trimTo(h, store.Bounds{MaxEvents: 1}, 35)
}

func testTrimBytes(t *testing.T, h Harness) {
	r := newRoom(t, h.Store, "r")
	for i := range 20 {
		r.publish("alice", "", fmt.Sprintf("%0*d", 1+i*i, 0))
	}
	size := func(from uint64) (n uint64) {
		for _, e := range r.events[from-1:] {
			n += uint64(len(e))
		}
		return n
	}
	r.trimTo(h, store.Bounds{MaxBytes: size(1)}, 1)
	for _, oldest := range []uint64{2, 3, 9, 14} {
		r.trimTo(h, store.Bounds{MaxBytes: size(oldest)}, oldest)         // just fits
		r.trimTo(h, store.Bounds{MaxBytes: size(oldest) - 1}, oldest+1)   // just does not
		r.trimTo(h, store.Bounds{MaxBytes: size(oldest) + 100}, oldest+1) // fits
	}
	r.post(3) // the totals go on after a trim and a new start
	r.trimTo(h, store.Bounds{MaxBytes: size(20)}, 20)
	// The stricter bound wins.
	r.trimTo(h, store.Bounds{MaxBytes: size(21), MaxEvents: 3}, 22)
	r.trimTo(h, store.Bounds{MaxBytes: size(23), MaxEvents: 3}, 23)
	// The newest event alone is too large.
	r.trimTo(h, store.Bounds{MaxBytes: 1}, 25)
	r.post(2)
	r.trimTo(h, store.Bounds{MaxBytes: size(26)}, 26)
}

func testTrimAge(t *testing.T, h Harness) {
	r := newRoom(t, h.Store, "r") // the event of offset n is n seconds after epoch
	r.post(19)
	at := func(offset int) time.Time { return epoch.Add(time.Duration(offset) * time.Second) }
	r.trimTo(h, store.Bounds{Since: epoch}, 1)
	r.trimTo(h, store.Bounds{Since: at(5)}, 5) // not older than itself
	r.trimTo(h, store.Bounds{Since: at(5).Add(1)}, 6)
	r.trimTo(h, store.Bounds{Since: at(8), MaxEvents: 14}, 8)
	r.trimTo(h, store.Bounds{Since: at(8), MaxEvents: 12}, 9)
	r.trimTo(h, store.Bounds{Since: at(100)}, 21)
}

func testTrimAll(t *testing.T, h Harness) {
	r := openRoom(t, h.Store, "r")
	r.must(r.creation("alice"))
	r.post(4)
	r.trimTo(h, store.Bounds{Since: epoch.Add(time.Hour)}, 6)
	r.trimTo(h, store.Bounds{Since: epoch.Add(time.Hour), MaxEvents: 1, MaxBytes: 1}, 6)
	r.members([]store.Member{{User: "alice", Joined: 1}})
	if names, err := h.Reopen().Rooms(t.Context(), "", 10); err != nil || len(names) != 1 {
		t.Fatalf("rooms %q, %v: an emptied room exists", names, err)
	}
	r.reopen(h.Reopen())
	r.post(2)
	r.check(6)
}

func testTrimCanceled(t *testing.T, h Harness) {
	r := newRoom(t, h.Store, "r")
	r.post(9)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.log.Trim(ctx, store.Bounds{MaxEvents: 1})
	wantIs(t, err, context.Canceled)
	r.trimTo(h, store.Bounds{MaxEvents: 5}, 6) // it can be done later
}

func testTrimClientIDs(t *testing.T, h Harness) {
	r := newRoom(t, h.Store, "r")
	for i := range 10 {
		r.publish("alice", fmt.Sprint("c", i), "text") // offset i + 2
	}
	r.trim(store.Bounds{MaxEvents: 4})
	for range 2 {
		for i := range uint64(10) {
			want := i + 2
			if want < 8 {
				want = 0 // no longer retained
			}
			r.lookup("alice", fmt.Sprint("c", i), want)
		}
		r.reopen(h.Reopen())
	}
	// It is free again, and stays known for as long as the new event.
	again := r.publish("alice", "c0", "again")
	r.lookup("alice", "c0", again)
	r.trim(store.Bounds{MaxEvents: 3})
	r.lookup("alice", "c0", again)
	r.trim(store.Bounds{MaxBytes: 1})
	r.lookup("alice", "c0", 0)
	r.lookup("alice", "c9", 0)
}

// testTrimWhileInUse trims and reads while events are appended.
func testTrimWhileInUse(t *testing.T, h Harness) {
	const n = 2000
	r := newRoom(t, h.Store, "r")
	quit := make(chan struct{})
	var wg sync.WaitGroup
	loop := func(f func() error) {
		wg.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
					if err := f(); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	loop(func() error {
		st, err := r.log.Trim(t.Context(), store.Bounds{MaxEvents: 20})
		if err == nil && st.Oldest > st.Head+1 {
			err = fmt.Errorf("oldest %d, head %d", st.Oldest, st.Head)
		}
		return err
	})
	loop(func() error { return readAll(t, r.log) })
	done := make(chan error, n)
	for i := range uint64(n) {
		e := r.eventAt(i+2, "alice", fmt.Sprint("c", i), "text")
		check(t, r.log.Append(&store.Append{Expect: i + 1, Events: []store.Event{e}, Done: func(err error) { done <- err }}))
		if i%16 == 15 { // let the trims have their turns between
			for range 16 {
				check(t, <-done)
			}
		}
	}
	close(quit)
	wg.Wait()
	if st := r.trim(store.Bounds{MaxEvents: 20}); st.Head != n+1 || st.Oldest != n+1-19 {
		t.Fatalf("state at the end: %+v", st)
	}
	check(t, readAll(t, r.log))
}

// readAll reads what is retained, in pages, and checks that nothing is missing
// but what is trimmed meanwhile.
func readAll(t *testing.T, l store.Log) error {
	for after := uint64(0); ; {
		p, err := l.Read(t.Context(), after, 1<<60, 500, nil)
		if err != nil || p.Last == 0 {
			return err
		}
		if oldest := l.State().Oldest; p.First != after+1 && after+1 >= oldest {
			return fmt.Errorf("read [%d, %d] after %d, while the oldest was %d", p.First, p.Last, after, oldest)
		}
		events, err := event.DecodeAll(p.Data)
		if err != nil {
			return err
		}
		if uint64(len(events)) != p.Last-p.First+1 || events[0].GetOffset() != p.First {
			return errors.New("a page with other events than it says")
		}
		after = p.Last
	}
}
