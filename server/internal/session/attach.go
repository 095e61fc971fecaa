package session

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/reprise-chat/reprise/server/internal/fault"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// Takeover says what to do when another instance that is alive holds the
// session.
type Takeover int

// The policies; the zero value forks.
const (
	Fork Takeover = iota
	TakeOver
	Refuse
)

// probeFor is how long a holder has to answer before it counts as silent.
const probeFor = 2 * time.Second

// Attached is what an attach made.
type Attached struct {
	// Session is pinned until Detach.
	Session *Session
	// Attach is the attach number of the new attachment.
	Attach uint64
	// Key is the next resume key.
	Key string

	previous Holder
	same     bool
}

// Candidate is a session that may be resumed, locked against other attaches
// until Abandon or Commit.
type Candidate struct {
	registry *Registry
	session  *Session
	keys     []store.Key // valid after the key presented was proven
	holder   Holder      // a live stream that will be superseded, or nil
	same     bool        // by the same instance
	unlock   func()
	release  func()
}

// Resume looks a session up for an attach: it checks the key and the holder.
// It returns fork and no candidate if the key is stale, or if another instance
// is alive and is to be left alone. Errors: ErrNotFound (no such session of
// this user: the caller may rebuild it), ErrHeld, ErrKeyMalformed,
// ErrKeyNotYours. Nothing has been changed yet.
func (g *Registry) Resume(ctx context.Context, user, id, key, instance string, policy Takeover) (c *Candidate, fork bool, err error) {
	if err := CheckKey(key, user); err != nil {
		return nil, false, err
	}
	s, release, err := g.Acquire(ctx, user, id)
	if err != nil {
		return nil, false, err
	}
	if s.ephemeral {
		release()
		return nil, false, ErrNotFound
	}
	unlock, err := g.locks.lock(ctx, id)
	if err != nil {
		release()
		return nil, false, err
	}
	c = &Candidate{registry: g, session: s, unlock: unlock, release: release}
	fork, err = c.examine(ctx, key, instance, policy)
	if err != nil || fork {
		c.Abandon()
		return nil, fork, err
	}
	return c, false, nil
}

// examine decides between taking the session over and forking it.
func (c *Candidate) examine(ctx context.Context, key, instance string, policy Takeover) (fork bool, err error) {
	s := c.session
	if err := s.refresh(ctx); err != nil {
		return false, err
	}
	s.mu.Lock()
	ended, keys, holder := s.ended, s.record.Keys, s.holder
	attached := s.record.Attached
	s.mu.Unlock()
	if ended {
		return false, ErrNotFound
	}
	if fault.Broken(fault.ExpireSessions) && time.Since(attached) > fault.Lifetime {
		return false, ErrNotFound
	}
	rest, ok := prove(keys, key)
	if !ok {
		return true, nil
	}
	c.keys = rest
	if holder == nil || !holder.Live() {
		return false, nil
	}
	c.holder, c.same = holder, instance != "" && holder.Instance() == instance
	if c.same || instance == "" || policy == TakeOver {
		return false, nil
	}
	alive, err := answers(ctx, holder)
	switch {
	case err != nil:
		return false, err
	case !alive:
		return false, nil
	case policy == Refuse:
		return false, ErrHeld
	}
	return true, nil
}

// refresh reads the record again if an attach has failed half-way.
func (s *Session) refresh(ctx context.Context) error {
	s.mu.Lock()
	stale := s.stale
	s.mu.Unlock()
	if !stale {
		return nil
	}
	rec, err := s.registry.store.Session(ctx, s.id)
	if errors.Is(err, store.ErrNotFound) {
		return ErrNotFound
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record, s.checkpoint, s.stale = rec, max(s.checkpoint, rec.Checkpoint), false
	s.attach.Store(rec.Attach)
	return nil
}

// answers reports whether a holder gives a sign of life in time.
func answers(ctx context.Context, h Holder) (bool, error) {
	timeout := time.NewTimer(probeFor)
	defer timeout.Stop()
	select {
	case <-h.Probe():
		return true, nil
	case <-timeout.C:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// Abandon gives the candidate up; nothing was changed.
func (c *Candidate) Abandon() {
	c.unlock()
	c.release()
}

// Seen returns the version of the user's memberships that the client was told
// last: with the Welcome whose key it presented, whatever was sent since and did
// not arrive.
func (c *Candidate) Seen() uint64 {
	if told := c.keys[0].Told; told > 0 && !fault.Broken(fault.TellOnce) {
		return told - 1
	}
	if len(c.keys) > 1 && !fault.Broken(fault.TellOnce) { // recorded by an earlier release: it has not seen the last one
		return 0
	}
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	return c.session.record.Seen
}

// Positions returns what the session has acknowledged, by room.
func (c *Candidate) Positions(ctx context.Context) (map[string]store.Position, error) {
	return c.registry.positions(ctx, c.session)
}

func (g *Registry) positions(ctx context.Context, s *Session) (map[string]store.Position, error) {
	ps, err := g.store.Positions(ctx, s.id)
	if err != nil {
		return nil, err
	}
	m := make(map[string]store.Position, len(ps))
	for _, p := range ps {
		m[p.Room] = p
	}
	s.overlay(m)
	return m, nil
}

// Covers returns ErrPositionsNeeded if the client, which names checkpoint and
// the positions that moved since, might hold less than the session has stored
// in a room it did not name: the checkpoint is unknown here, or some other
// position was stored after it.
func (c *Candidate) Covers(checkpoint string, stored map[string]store.Position, named func(room string) bool) error {
	if checkpoint == "" {
		return nil
	}
	n, ok := parseCheckpoint(checkpoint)
	s := c.session
	s.mu.Lock()
	known := ok && n <= s.checkpoint
	s.mu.Unlock()
	if !known {
		return ErrPositionsNeeded
	}
	for room, p := range stored {
		if p.Checkpoint > n && !named(room) {
			return ErrPositionsNeeded
		}
	}
	return nil
}

// Commit raises the attach number by compare-and-swap, rotates the key, stores
// in the same commit the positions that the client named and those of rooms it
// has gained or lost, and makes h the holder. From here on nothing from an older
// attachment is accepted. The candidate is used up. The caller calls Welcomed
// when the old holder may be told.
func (c *Candidate) Commit(ctx context.Context, h Holder, seen uint64, named, gained []store.Position) (*Attached, error) {
	s, g := c.session, c.registry
	defer c.unlock()
	key := newKey(s.user)
	s.mu.Lock()
	rec := s.record
	rec.Attach++
	rec.Keys = mint(c.keys, key, rec.Attach, seen)
	rec.Seen = seen
	rec.Attached = time.Now()
	if len(named) > 0 { // newer than any checkpoint; of a gained room the client holds nothing yet
		rec.Checkpoint = s.checkpoint + 1
	}
	changed := slices.Concat(named, gained)
	s.mu.Unlock()
	// Not to be left half-way when the client goes away meanwhile.
	if err := g.store.PutSession(context.WithoutCancel(ctx), rec, changed); err != nil {
		s.mu.Lock()
		s.stale = true
		s.mu.Unlock()
		c.release()
		if errors.Is(err, store.ErrConflict) {
			return nil, ErrFenced // another node has attached it
		}
		return nil, err
	}
	rec.Revision++
	a := &Attached{Session: s, Attach: rec.Attach, Key: key, same: c.same}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record = rec
	s.checkpoint = max(s.checkpoint, rec.Checkpoint)
	a.previous, s.holder = s.holder, h
	s.acks = 0
	s.attach.Store(rec.Attach)
	for _, p := range changed {
		delete(s.dirty, p.Room)
	}
	return a, nil
}

// Create makes a new session of user with the given positions and attaches h.
// claimed says that some of them are the client's own. Beyond the limit one of
// the user's detached sessions makes room; if all are attached, ErrTooMany.
func (g *Registry) Create(ctx context.Context, h Holder, user string, seen uint64, ps []store.Position, claimed bool) (*Attached, error) {
	unlock, err := g.locks.lock(ctx, "user\x00"+user)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := g.makeRoom(ctx, user); err != nil {
		return nil, err
	}
	now := time.Now()
	key := newKey(user)
	rec := store.Session{
		ID: newID(), User: user, Attach: 1, Keys: mint(nil, key, 1, seen),
		Created: now, Attached: now, Seen: seen, Checkpoint: firstCheckpoint,
	}
	if claimed { // it has handled something, if not in this session
		rec.Checkpoint++
	}
	if err := g.store.PutSession(context.WithoutCancel(ctx), rec, ps); err != nil {
		return nil, err
	}
	rec.Revision = 1
	s := g.adopt(rec)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holder = h
	return &Attached{Session: s, Attach: 1, Key: key}, nil
}

// Welcomed tells the superseded holder, if there is one. The new attachment's
// fence is already in force.
func (a *Attached) Welcomed() {
	if a.previous != nil && a.previous.Live() {
		a.previous.Supersede(a.Attach, a.same)
	}
}

// Newest returns what was acknowledged in a room while the attach was under
// way, if anything was.
func (a *Attached) Newest(room string) (store.Position, bool) {
	a.Session.mu.Lock()
	defer a.Session.mu.Unlock()
	p, ok := a.Session.dirty[room]
	return p, ok
}

// Detach says that the attachment's stream is gone.
func (a *Attached) Detach(h Holder) {
	s := a.Session
	s.mu.Lock()
	if s.holder == h {
		s.holder = nil
	}
	s.mu.Unlock()
	s.registry.release(s)
}
