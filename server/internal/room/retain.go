package room

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// retain applies retention to every room, in the background, one room after
// another: it never hurries, and readers behind it get a Gap.
func (h *Hub) retain(ctx context.Context) {
	tick := time.NewTicker(h.opts.TrimEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := h.TrimAll(ctx); err != nil && ctx.Err() == nil {
			h.opts.Logger.Error("retention failed; will be tried again", "error", err)
		}
	}
}

// TrimAll applies retention to every room now, also when that fails for some of
// them. When no room has any, it finds that out once and then has nothing to do.
func (h *Hub) TrimAll(ctx context.Context) error {
	if h.surveyed.Load() && !h.retains.Load() {
		return nil
	}
	const page = 256
	failed := 0
	var first error
	for after := ""; ; {
		names, err := h.store.Rooms(ctx, after, page)
		if err != nil {
			return err
		}
		for _, name := range names {
			err := h.trim(ctx, name)
			if ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
				return err
			}
			if err != nil {
				failed++
				first = cmp.Or(first, err)
			}
		}
		if len(names) < page {
			break
		}
		after = names[len(names)-1]
	}
	if failed > 0 {
		return fmt.Errorf("%d rooms, the first of them: %w", failed, first)
	}
	h.surveyed.Store(true)
	return nil
}

func (h *Hub) trim(ctx context.Context, name string) error {
	r, err := h.Acquire(ctx, name)
	if err != nil {
		return err
	}
	err = r.trim(ctx)
	r.Release()
	h.forget(r)
	return err
}

// forget evicts a room that was in memory for its retention only, so that a
// pass over all rooms does not hold them all.
func (h *Hub) forget(r *Room) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if bytes, _ := r.tailUse(); bytes == 0 && r.refs.Load() == 0 && r.idleSince(time.Now()) && h.rooms[r.name] == r {
		delete(h.rooms, r.name)
	}
}

func (r *Room) trim(ctx context.Context) error {
	info, err := r.Info()
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	keep := info.Meta.Retention
	if keep.IsZero() {
		keep = r.hub.opts.Retention
	}
	if keep.IsZero() {
		return nil
	}
	r.hub.retains.Store(true)
	b := store.Bounds{MaxEvents: keep.MaxEvents, MaxBytes: keep.MaxBytes}
	if keep.MaxAge > 0 {
		b.Since = time.Now().Add(-keep.MaxAge)
	}
	r.trimming.Lock()
	defer r.trimming.Unlock()
	s, err := r.engine().Trim(ctx, b)
	r.mu.Lock()
	before := r.oldest
	r.oldest = max(r.oldest, s.Oldest)
	trimmed := r.oldest - before
	r.mu.Unlock()
	if trimmed > 0 {
		r.hub.opts.Logger.Debug("retention", "room", r.name, "events", trimmed, "oldest", before+trimmed)
	}
	return err
}
