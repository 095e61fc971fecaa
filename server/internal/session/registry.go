package session

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// Options configure a Registry.
type Options struct {
	// MaxPerUser bounds the sessions of a user. Default 32.
	MaxPerUser int
	// Logger for background work. Default slog.Default().
	Logger *slog.Logger
}

// Registry holds the sessions that are in use on this node. Safe for
// concurrent use.
type Registry struct {
	// Static.
	store store.Store
	opts  Options
	// locks serialises the attaches, flushes and the end of one session, and,
	// under the user's name, the making of sessions of one user.
	locks keylock

	mu        sync.Mutex
	sessions  map[string]*Session
	ephemeral map[string]map[*Session]struct{} // by user; each is in sessions too

	dirtyMu sync.Mutex
	dirty   map[*Session]struct{}
	kick    chan struct{} // capacity 1: something is dirty

	stop       context.CancelFunc
	background sync.WaitGroup
}

// NewRegistry returns a Registry over s and starts its background work. Close
// it.
func NewRegistry(s store.Store, o Options) *Registry {
	if o.MaxPerUser == 0 {
		o.MaxPerUser = 32
	}
	o.Logger = cmp.Or(o.Logger, slog.Default())
	ctx, stop := context.WithCancel(context.Background())
	g := &Registry{
		store: s, opts: o,
		sessions:  make(map[string]*Session),
		ephemeral: make(map[string]map[*Session]struct{}),
		dirty:     make(map[*Session]struct{}),
		kick:      make(chan struct{}, 1),
		stop:      stop,
	}
	g.background.Go(func() { g.flusher(ctx) })
	return g
}

// Close stores what has been acknowledged and stops the background work.
func (g *Registry) Close(ctx context.Context) {
	g.stop()
	g.background.Wait()
	g.Flush(ctx)
}

// Acquire returns a session of user and keeps it in memory until release is
// called. ErrNotFound if there is none, or it is another user's.
func (g *Registry) Acquire(ctx context.Context, user, id string) (s *Session, release func(), err error) {
	s = g.pin(id)
	if s == nil {
		if s, err = g.load(ctx, id); err != nil {
			return nil, nil, err
		}
	}
	if s.user != user {
		g.release(s)
		return nil, nil, ErrNotFound
	}
	return s, func() { g.release(s) }, nil
}

// pin returns a session that is in memory, pinned, or nil.
func (g *Registry) pin(id string) *Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.sessions[id]
	if s != nil {
		s.pins++
	}
	return s
}

// load returns a session from the store, pinned. Under the session's lock
// nobody changes the record between its reading and the adoption: what is
// checked against an attach number must not be older than it.
func (g *Registry) load(ctx context.Context, id string) (*Session, error) {
	unlock, err := g.locks.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s := g.pin(id); s != nil {
		return s, nil
	}
	rec, err := g.store.Session(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return g.adopt(rec), nil
}

// adopt returns the session of a record, pinned: the one in memory if there is
// one by now.
func (g *Registry) adopt(rec store.Session) *Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.sessions[rec.ID]
	if s == nil {
		s = &Session{id: rec.ID, user: rec.User, registry: g, record: rec, checkpoint: rec.Checkpoint}
		s.attach.Store(rec.Attach)
		g.sessions[rec.ID] = s
	}
	s.pins++
	return s
}

// release unpins s and forgets it if nothing needs it any more: a later use
// reads it from the store again.
func (g *Registry) release(s *Session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.pins--
	if s.pins > 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder == nil && len(s.dirty) == 0 {
		g.forgetLocked(s)
	}
}

// holderOf returns the live stream of a session, or nil.
func (g *Registry) holderOf(id string) Holder {
	g.mu.Lock()
	s := g.sessions[id]
	g.mu.Unlock()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	h := s.holder
	s.mu.Unlock()
	if h == nil || !h.Live() { // asked without the lock: it takes its own
		return nil
	}
	return h
}

// End ends a session of user: its record and positions are removed, its live
// stream ends. ErrNotFound if there is none, or it is another user's.
func (g *Registry) End(ctx context.Context, user, id string) error {
	_, err := g.end(ctx, user, id, false)
	return err
}

// end ends a session, or, with detached, leaves it alone if it is attached by
// now. It reports whether it did.
func (g *Registry) end(ctx context.Context, user, id string, detached bool) (bool, error) {
	s, release, err := g.Acquire(ctx, user, id)
	if err != nil {
		return false, err
	}
	defer release()
	unlock, err := g.locks.lock(ctx, id)
	if err != nil {
		return false, err
	}
	defer unlock()
	if detached && g.holderOf(id) != nil {
		return false, nil
	}
	return true, g.endLocked(ctx, s)
}

// endLocked ends s; the caller holds its keyed lock.
func (g *Registry) endLocked(ctx context.Context, s *Session) error {
	if !s.ephemeral {
		if err := g.store.DeleteSession(ctx, s.id); err != nil {
			return err
		}
	}
	s.mu.Lock()
	holder := s.holder
	s.ended = true
	s.dirty = nil
	s.mu.Unlock()
	if holder != nil {
		holder.Ended()
	}
	return nil
}

// Copy returns what a copy of the session starts with: its positions by room
// and the version of the user's memberships it has seen.
func (s *Session) Copy(ctx context.Context) (positions map[string]store.Position, seen uint64, err error) {
	positions, err = s.registry.positions(ctx, s)
	s.mu.Lock()
	defer s.mu.Unlock()
	return positions, s.record.Seen, err
}
