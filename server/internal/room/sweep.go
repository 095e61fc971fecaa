package room

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// sweeper removes rooms that have been without members for a while. The store
// has them in the order in which they lost the last one; when that was is
// measured here, by a clock that nobody sets: a restart begins anew, and a step
// of the wall clock removes nothing.
type sweeper struct {
	hub   *Hub
	every time.Duration
	// marks say how far that order had come at a moment, oldest first.
	marks []mark
	// after is up to where nothing is left to remove.
	after uint64
}

type mark struct {
	at      time.Time // monotonic
	version uint64
}

// marksWithin is how many marks are made within the time that a room is kept,
// which is how exactly that time is kept to.
const marksWithin = 8

func newSweeper(h *Hub) *sweeper {
	return &sweeper{hub: h, every: max(h.opts.EmptyRooms/marksWithin, time.Millisecond)}
}

func (s *sweeper) run(ctx context.Context) {
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		if upTo := s.due(time.Now()); upTo > s.after {
			err := s.sweep(ctx, upTo)
			if err != nil && ctx.Err() == nil {
				s.hub.opts.Logger.Error("rooms without members are not removed; will be tried again", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// due makes a mark and returns the newest one that is old enough: rooms up to
// there have been empty for long.
func (s *sweeper) due(now time.Time) (upTo uint64) {
	s.marks = append(s.marks, mark{now, s.hub.store.Version()})
	limit := now.Add(-s.hub.opts.EmptyRooms)
	upTo = s.after
	for len(s.marks) > 0 && !s.marks[0].at.After(limit) {
		upTo = s.marks[0].version
		s.marks = s.marks[1:]
	}
	return upTo
}

// sweep removes the empty rooms up to upTo, one after another. One that is in
// use, by a reader that has yet to be told that its membership has ended, is
// left for the next time, and so is one that cannot be read or removed: the
// others are not kept for it.
func (s *sweeper) sweep(ctx context.Context, upTo uint64) error {
	const page = 256
	settled := true
	var failed error
	for after := s.after; ; {
		rooms, err := s.hub.store.EmptyRooms(ctx, after, upTo, page)
		if err != nil {
			return err
		}
		for _, e := range rooms {
			removed, err := s.hub.remove(ctx, e)
			if ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
				return err
			}
			failed = cmp.Or(failed, err)
			settled = settled && removed
			after = e.Version
			if settled {
				s.after = after
			}
		}
		if len(rooms) < page {
			break
		}
	}
	if settled {
		s.after = upTo
	}
	return failed
}

// remove removes a room that is still empty and that nobody uses. Whoever wants
// it meanwhile waits, and finds that it does not exist.
func (h *Hub) remove(ctx context.Context, e store.EmptyRoom) (settled bool, err error) {
	r, err := h.Acquire(ctx, e.Name)
	if err != nil {
		return false, err
	}
	defer r.Release()
	info, err := r.Info()
	if err != nil || info.Members > 0 {
		return true, nil // removed, or in use again
	}
	fresh := h.replace(r)
	if fresh == nil {
		return false, nil
	}
	removed, err := h.store.RemoveRoom(context.WithoutCancel(ctx), e)
	h.fill(fresh)
	fresh.Release()
	if removed {
		h.opts.Logger.Info("room removed: it had no members any more", "room", e.Name, "head", info.Head, "incarnation", info.Incarnation)
	}
	return err == nil, err
}

// replace puts a room that is yet to be loaded in the place of r, unless
// somebody else uses r or something of it is yet to be committed.
func (h *Hub) replace(r *Room) *Room {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.rooms[r.name] != r || r.refs.Load() != 1 || !r.settled() {
		return nil
	}
	fresh := newRoom(h, r.name)
	fresh.refs.Add(1)
	h.rooms[r.name] = fresh
	return fresh
}

// settled reports whether nothing is on its way into the room.
func (r *Room) settled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed == nil && r.pending == 0 && r.creating == nil && len(r.cursors) == 0 && r.count == 0
}
