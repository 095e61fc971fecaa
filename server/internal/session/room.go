package session

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/reprise-chat/reprise/server/internal/fault"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// firstCheckpoint is that of a session whose client has acknowledged nothing.
const firstCheckpoint = 1

// makeRoom ends sessions of the user if there are too many: detached ones, and
// first those that are worth least.
func (g *Registry) makeRoom(ctx context.Context, user string) error {
	recs, err := g.store.Sessions(ctx, user)
	if err != nil {
		return err
	}
	excess := len(recs) - g.opts.MaxPerUser + 1
	if excess <= 0 {
		return nil
	}
	candidates := make([]dispensable, 0, len(recs))
	for _, rec := range recs {
		if g.holderOf(rec.ID) == nil {
			candidates = append(candidates, dispensable{rec, g.worth(rec)})
		}
	}
	slices.SortFunc(candidates, func(a, b dispensable) int {
		if fault.Broken(fault.EvictByClock) {
			return a.rec.Attached.Compare(b.rec.Attached)
		}
		return cmp.Or(
			cmp.Compare(a.worth, b.worth),
			cmp.Compare(a.rec.Used, b.rec.Used),
			a.rec.Attached.Compare(b.rec.Attached), // both from before uses were numbered
		)
	})
	for _, c := range candidates {
		if excess == 0 {
			return nil
		}
		ended, err := g.end(ctx, user, c.rec.ID, true)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if ended || err != nil { // not attached meanwhile
			excess--
		}
	}
	if excess > 0 {
		return ErrTooMany
	}
	return nil
}

// dispensable is a session that may make room.
type dispensable struct {
	rec   store.Session
	worth int
}

// worth says how much a client would lose with a session. One that has
// acknowledged something has a place to lose; one that has been resumed will be
// again, while a program that keeps nothing leaves one behind at each start.
func (g *Registry) worth(rec store.Session) (worth int) {
	if rec.Checkpoint > firstCheckpoint || g.unsaved(rec.ID) {
		worth += 2
	}
	if rec.Attach > 1 {
		worth++
	}
	return worth
}

// unsaved reports whether something was acknowledged that is not stored yet.
func (g *Registry) unsaved(id string) bool {
	g.mu.Lock()
	s := g.sessions[id]
	g.mu.Unlock()
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.dirty) > 0
}
