package room

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/reprise-chat/reprise/server/internal/fault"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// ErrUnavailable says that the engine could not read or write something of the
// room just now. It may the next time, so a caller tries again.
var ErrUnavailable = errors.New("room: unavailable")

// UnavailableError says which room and why. It wraps ErrUnavailable and the
// engine's error.
type UnavailableError struct {
	Room string
	Err  error
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("room: %q is unavailable: %v", e.Room, e.Err)
}

// Unwrap returns ErrUnavailable and the cause.
func (e *UnavailableError) Unwrap() []error { return []error{ErrUnavailable, e.Err} }

// passing are the errors of the engine that come and go and concern one room.
// What is not among them keeps its name: the end of a context, a store that is
// closed or full, and mistakes of this package.
var passing = []error{store.ErrRead, store.ErrCorrupt, store.ErrConflict}

// unavailable gives an error of the engine the room's name if it is one that
// comes and goes.
func unavailable(room string, err error) error {
	for _, p := range passing {
		if errors.Is(err, p) && !errors.Is(err, ErrUnavailable) {
			return &UnavailableError{Room: room, Err: err}
		}
	}
	return err
}

func (r *Room) unavailable(err error) error { return unavailable(r.name, err) }

// failLocked notes that an append was refused at its turn: what was numbered
// after it will be refused too. From here on nothing is appended until the room
// is mended. What is known of members may have been of changes that did not
// happen.
func (r *Room) failLocked(err error) {
	if r.failed == nil {
		r.failed = r.unavailable(err)
		r.failures++
		r.creating = nil
		r.members = make(map[string]bool)
		r.unlearned++
		r.hub.opts.Logger.Error("a write of a room failed; the room takes writes again when those that waited behind it were refused",
			"room", r.name, "error", err)
	}
	r.stirLocked()
	if r.pending == 0 {
		r.hub.mender.push(r)
	}
}

// failuresNow returns how often a write of the room failed.
func (r *Room) failuresNow() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failures
}

// sinceLocked refuses a caller who knows something of the room that may have
// been undone, because a write of it failed since then. Such a caller begins
// again.
func (r *Room) sinceLocked(failures uint64) error {
	switch {
	case r.failed != nil:
		return r.failed
	case r.failures != failures:
		return &UnavailableError{Room: r.name, Err: store.ErrConflict}
	}
	return nil
}

// mend opens the room anew after a write of it failed: the numbering goes on
// from what is durable. Readers notice nothing, since they were never shown
// anything else.
func (r *Room) mend(ctx context.Context) error {
	log, err := r.hub.store.OpenLog(ctx, r.name)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := log.State()
	if s.Head != r.durable { // somebody else has written
		r.tail = tail{} // never serve a hole
		if !r.moving && len(r.cursors) > 0 {
			r.moving = true
			defer r.hub.waker.push(r)
		}
	}
	if fault.Broken(fault.StayFailed) {
		return nil
	}
	r.log = log
	r.meta = s.Meta
	r.head, r.durable, r.oldest = s.Head, s.Head, max(r.oldest, s.Oldest)
	r.count, r.invited, r.stretches = s.Members, s.Invited, s.Stretches
	r.failed = nil
	return nil
}

// Backoff of a room that cannot be opened.
const (
	mendFirst = 50 * time.Millisecond
	mendMost  = 5 * time.Second
)

// mender opens rooms anew, in the background: it reads the disk.
type mender struct {
	wake chan struct{} // capacity 1: rooms was added to

	mu    sync.Mutex
	rooms []*Room // those that failed, each once: none of their appends is left
}

func newMender() *mender { return &mender{wake: make(chan struct{}, 1)} }

// push has r mended. It does not block.
func (m *mender) push(r *Room) {
	m.mu.Lock()
	m.rooms = append(m.rooms, r)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *mender) run(ctx context.Context, h *Hub) {
	wait := mendFirst
	again := time.NewTimer(mendMost)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-again.C:
		}
		m.mu.Lock()
		rooms := m.rooms
		m.rooms = nil
		m.mu.Unlock()
		left := m.mendAll(ctx, h, rooms)
		if len(left) == 0 {
			wait = mendFirst
			continue
		}
		m.mu.Lock()
		m.rooms = append(left, m.rooms...)
		m.mu.Unlock()
		again.Reset(wait)
		wait = min(2*wait, mendMost)
	}
}

// mendAll returns the rooms that could not be mended. Those of a store that is
// closed never can.
func (m *mender) mendAll(ctx context.Context, h *Hub, rooms []*Room) (left []*Room) {
	for _, r := range rooms {
		switch err := r.mend(ctx); {
		case err == nil:
			h.opts.Logger.Info("the room takes writes again", "room", r.name)
		case errors.Is(err, store.ErrClosed), ctx.Err() != nil:
		default:
			h.opts.Logger.Warn("a room whose write failed could not be opened; will be tried again", "room", r.name, "error", err)
			left = append(left, r)
		}
	}
	return left
}
