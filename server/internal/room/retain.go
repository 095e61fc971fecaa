package room

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/reprise-chat/reprise/server/internal/fault"
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
		h.noteClock(ctx, noteClockEvery)
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
	r.trimming.Lock()
	defer r.trimming.Unlock()
	for _, rule := range r.hub.rules(keep) {
		if err := r.trimBy(ctx, rule); err != nil {
			return err
		}
	}
	return nil
}

// rule is one of the bounds that retention has.
type rule struct {
	name  string
	limit any // as an operator gave it
	store.Bounds
}

// rules returns the bounds that apply now, each by itself, so that what is
// removed can be said to be removed by one of them.
func (h *Hub) rules(keep store.Retention) (rules []rule) {
	if keep.MaxEvents > 0 {
		rules = append(rules, rule{"events", keep.MaxEvents, store.Bounds{MaxEvents: keep.MaxEvents}})
	}
	if keep.MaxBytes > 0 {
		rules = append(rules, rule{"bytes", keep.MaxBytes, store.Bounds{MaxBytes: keep.MaxBytes}})
	}
	now, ok := h.clock.Aged()
	if fault.Broken(fault.BelieveClock) {
		now, ok = h.opts.ReadClock().Wall, true
	}
	if ok && keep.MaxAge > 0 {
		rules = append(rules, rule{"age", keep.MaxAge.String(), store.Bounds{Since: now.Add(-keep.MaxAge)}})
	}
	return rules
}

// trimBy removes what a rule no longer keeps, and says so.
func (r *Room) trimBy(ctx context.Context, rule rule) error {
	s, err := r.engine().Trim(ctx, rule.Bounds)
	r.mu.Lock()
	before := r.oldest
	r.oldest = max(r.oldest, s.Oldest)
	after := r.oldest
	r.mu.Unlock()
	if after > before {
		r.hub.opts.Logger.Info("retention removed events", "room", r.name, "first", before, "last", after-1, "rule", rule.name, "limit", rule.limit)
	}
	return err
}
