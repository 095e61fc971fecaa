package session

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// CreateEphemeral makes a session of user that ends with its stream, and
// attaches h. It is in memory only, so it ends with the process too. It takes
// the place of no other session; there may be as many of them as of the others,
// beyond that ErrTooMany.
func (g *Registry) CreateEphemeral(h Holder, user string) (*Attached, error) {
	now := time.Now()
	rec := store.Session{ID: newID(), User: user, Attach: 1, Created: now, Attached: now}
	s := &Session{id: rec.ID, user: user, registry: g, ephemeral: true, pins: 1, record: rec, holder: h}
	s.attach.Store(rec.Attach)
	g.mu.Lock()
	defer g.mu.Unlock()
	of := g.ephemeral[user]
	if len(of) >= g.opts.MaxPerUser {
		return nil, ErrTooMany
	}
	if of == nil {
		of = make(map[*Session]struct{})
		g.ephemeral[user] = of
	}
	of[s] = struct{}{}
	g.sessions[s.id] = s
	return &Attached{Session: s, Attach: rec.Attach, Key: newKey(user)}, nil
}

// forgetLocked takes s out of memory. The caller holds g.mu.
func (g *Registry) forgetLocked(s *Session) {
	delete(g.sessions, s.id)
	if of := g.ephemeral[s.user]; s.ephemeral && of != nil {
		delete(of, s)
		if len(of) == 0 {
			delete(g.ephemeral, s.user)
		}
	}
}

// List returns the user's sessions, oldest first, and whether each is
// attached. Those that end with their stream are among them while it lasts.
func (g *Registry) List(ctx context.Context, user string) ([]store.Session, []bool, error) {
	recs, err := g.store.Sessions(ctx, user)
	if err != nil {
		return nil, nil, err
	}
	g.mu.Lock()
	for s := range g.ephemeral[user] {
		recs = append(recs, s.record) // never changed
	}
	g.mu.Unlock()
	slices.SortStableFunc(recs, func(a, b store.Session) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	attached := make([]bool, len(recs))
	for i, rec := range recs {
		attached[i] = g.holderOf(rec.ID) != nil
	}
	return recs, attached, nil
}
