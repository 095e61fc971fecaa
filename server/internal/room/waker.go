package room

import (
	"context"
	"sync"
	"time"
)

const (
	// crowd is how many readers a room must have for its passes to be held: a
	// pass over a few costs less than the wait.
	crowd = 16
	// holdFor is how long a pass over a crowd waits while earlier passes are not
	// worked off. It then brings each reader several events at the cost of one:
	// at 100 events/s for 1,000 readers a quarter of the CPU, and less delay for
	// most of them, because they do not queue behind as many sends.
	holdFor = time.Millisecond
)

// waker tells the readers of rooms that have moved, apart from the goroutine
// that commits: an event must not wait until the thousand readers of another
// one were told, and many events in a row are told as one.
type waker struct {
	busy   func(readers int) bool // Options.Busy
	signal chan struct{}          // capacity 1: moved was empty

	mu    sync.Mutex
	moved []*Room // each at most once: those with their moving set and not in held

	// Owned by run.
	held    []*Room // in the order of their due
	readers []*Cursor
}

func newWaker(busy func(int) bool) *waker {
	return &waker{busy: busy, signal: make(chan struct{}, 1)}
}

// push has the readers of r told. The caller has set r.moving.
func (w *waker) push(r *Room) {
	w.mu.Lock()
	w.moved = append(w.moved, r)
	w.mu.Unlock()
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

func (w *waker) run(ctx context.Context) {
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	var spare []*Room
	for {
		select {
		case <-w.signal:
		case <-due.C:
		case <-ctx.Done():
			return
		}
		w.mu.Lock()
		rooms := w.moved
		w.moved = spare[:0]
		w.mu.Unlock()
		for _, r := range rooms {
			if r.readers >= crowd && w.busy(r.readers) {
				r.due = time.Now().Add(holdFor)
				w.held = append(w.held, r)
				continue
			}
			w.pass(r)
		}
		clear(rooms)
		spare = rooms
		w.passHeld()
		if len(w.held) > 0 {
			due.Reset(time.Until(w.held[0].due))
		}
	}
}

// passHeld tells the readers of the rooms that were held for long enough.
func (w *waker) passHeld() {
	n := 0
	for n < len(w.held) && !time.Now().Before(w.held[n].due) {
		w.pass(w.held[n])
		n++
	}
	if n > 0 {
		k := copy(w.held, w.held[n:])
		clear(w.held[k:])
		w.held = w.held[:k]
	}
}

// pass wakes the readers of r.
func (w *waker) pass(r *Room) {
	r.mu.Lock()
	r.moving = false // before they look: what comes from now on is another pass
	w.readers = append(w.readers[:0], r.cursors...)
	r.mu.Unlock()
	for _, c := range w.readers {
		c.sub.Wake(len(w.readers))
	}
	r.readers = len(w.readers)
	clear(w.readers)
}
