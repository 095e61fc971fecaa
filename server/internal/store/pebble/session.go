package pebble

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	db "github.com/cockroachdb/pebble/v2"

	storev1 "github.com/reprise-chat/reprise/gen/reprise/store/v1"
	"github.com/reprise-chat/reprise/server/internal/fault"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// awaited is a write whose caller waits for the outcome.
type awaited struct{ outcome chan error }

func newAwaited() awaited { return awaited{make(chan error, 1)} }

func (w awaited) done(err error) { w.outcome <- err }

// do queues a write and waits until it is durable.
func (s *Store) do(ctx context.Context, o op, w awaited) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.queue.put(o) != nil { // closed: only appends are too many
		return s.closedError()
	}
	select {
	case err := <-w.outcome:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Session implements [store.Store].
func (s *Store) Session(ctx context.Context, id string) (session store.Session, err error) {
	err = s.look(ctx, func(v *view) error {
		found, ok, err := readSession(v.snap, id)
		if err == nil && !ok {
			return store.ErrNotFound
		}
		session = found
		return err
	})
	return session, err
}

func readSession(r db.Reader, id string) (s store.Session, ok bool, err error) {
	key := sessionKey(id)
	value, ok, err := get(r, key)
	if err != nil || !ok {
		return store.Session{}, false, err
	}
	if s, err = decodeSession(id, value); err != nil {
		return store.Session{}, false, badRecord(key, err)
	}
	return s, true, nil
}

// Sessions implements [store.Store].
func (s *Store) Sessions(ctx context.Context, user string) (sessions []store.Session, err error) {
	prefix := sessionsPrefix(user)
	err = s.look(ctx, func(v *view) error {
		return scan(v.snap, prefix, prefixEnd(prefix), func(key, _ []byte) (bool, error) {
			id, err := parseSessionsKey(key, prefix)
			if err != nil {
				return false, badRecord(key, err)
			}
			session, ok, err := readSession(v.snap, id)
			if err != nil {
				return false, err
			}
			if !ok {
				return false, badRecord(key, fmt.Errorf("no session %q", id))
			}
			sessions = append(sessions, session)
			return true, ctx.Err()
		})
	})
	return sessions, err
}

// Positions implements [store.Store].
func (s *Store) Positions(ctx context.Context, id string) (positions []store.Position, err error) {
	prefix := positionPrefix(id)
	err = s.look(ctx, func(v *view) error {
		return scan(v.snap, prefix, prefixEnd(prefix), func(key, value []byte) (bool, error) {
			p, err := decodePosition(string(key[len(prefix):]), value)
			if err != nil {
				return false, badRecord(key, err)
			}
			positions = append(positions, p)
			return true, ctx.Err()
		})
	})
	return positions, err
}

// PutSession implements [store.Store].
func (s *Store) PutSession(ctx context.Context, session store.Session, p []store.Position) error {
	// The caller may change its slices while the write waits, if its context
	// ends.
	session.Keys = slices.Clone(session.Keys)
	o := &putSession{awaited: newAwaited(), session: session, positions: slices.Clone(p)}
	return s.do(ctx, o, o.awaited)
}

// DeleteSession implements [store.Store].
func (s *Store) DeleteSession(ctx context.Context, id string) error {
	o := &deleteSession{awaited: newAwaited(), id: id}
	return s.do(ctx, o, o.awaited)
}

// SavePositions implements [store.Store].
func (s *Store) SavePositions(ctx context.Context, id string, attach, checkpoint uint64, p []store.Position) error {
	o := &savePositions{awaited: newAwaited(), id: id, attach: attach, checkpoint: checkpoint, positions: slices.Clone(p)}
	return s.do(ctx, o, o.awaited)
}

// session returns the session as earlier writes of the batch leave it, or nil.
func (b *batch) session(id string) (*store.Session, error) {
	if s, known := b.sessions[id]; known {
		return s, nil
	}
	s, ok, err := readSession(b.c.s.db, id)
	if err != nil || !ok {
		return nil, err
	}
	return &s, nil
}

func (b *batch) putSession(s *store.Session) {
	b.noteSession(s.ID, s)
	b.set(sessionKey(s.ID), encode(sessionRecord(*s)))
}

// noteSession tells later writes of the batch; nil: it was deleted.
func (b *batch) noteSession(id string, s *store.Session) {
	if b.sessions == nil {
		b.sessions = make(map[string]*store.Session)
	}
	b.sessions[id] = s
}

func (b *batch) putPositions(id string, checkpoint uint64, positions []store.Position) {
	for _, p := range positions {
		if p.Gone {
			b.delete(positionKey(id, p.Room))
			continue
		}
		b.set(positionKey(id, p.Room), encode(&storev1.Position{
			Incarnation: []byte(p.Incarnation),
			Offset:      p.Offset,
			Checkpoint:  checkpoint,
		}))
	}
}

// Costs, for the bound of a batch: about what a record takes.
const (
	sessionBytes  = 512
	positionBytes = 128
)

type putSession struct {
	awaited
	session   store.Session
	positions []store.Position
}

func (o *putSession) cost() (events, bytes int) {
	return 1 + len(o.positions), sessionBytes + positionBytes*len(o.positions)
}

func (o *putSession) apply(b *batch) error {
	old, err := b.session(o.session.ID)
	if err != nil {
		return err
	}
	var revision uint64
	if old != nil {
		revision = old.Revision
	}
	if revision != o.session.Revision {
		return fmt.Errorf("%w: session %q has revision %d, not %d",
			store.ErrConflict, o.session.ID, revision, o.session.Revision)
	}
	s := o.session
	s.Revision++
	index := sessionsKey(s.User, s.Created, s.ID)
	if old != nil {
		// A checkpoint that was saved since the caller read the session has
		// been promised to the client.
		s.Checkpoint = max(s.Checkpoint, old.Checkpoint)
		if fault.Broken(fault.FenceInMemory) {
			s.Attach = old.Attach
		}
		if k := sessionsKey(old.User, old.Created, s.ID); !bytes.Equal(k, index) {
			b.delete(k)
		}
	}
	s.Used = b.nextVersion()
	b.set(index, nil)
	b.putSession(&s)
	b.putPositions(s.ID, s.Checkpoint, o.positions)
	return nil
}

type deleteSession struct {
	awaited
	id string
}

func (o *deleteSession) cost() (events, bytes int) { return 1, sessionBytes }

func (o *deleteSession) apply(b *batch) error {
	old, err := b.session(o.id)
	if err != nil || old == nil {
		return err
	}
	b.noteSession(o.id, nil)
	b.delete(sessionKey(o.id))
	b.delete(sessionsKey(old.User, old.Created, o.id))
	prefix := positionPrefix(o.id)
	b.deleteRange(prefix, prefixEnd(prefix))
	return nil
}

type savePositions struct {
	awaited
	id                 string
	attach, checkpoint uint64
	positions          []store.Position
}

func (o *savePositions) cost() (events, bytes int) {
	return 1 + len(o.positions), sessionBytes + positionBytes*len(o.positions)
}

func (o *savePositions) apply(b *batch) error {
	old, err := b.session(o.id)
	if err != nil {
		return err
	}
	if old == nil {
		return store.ErrNotFound
	}
	if old.Attach != o.attach {
		return fmt.Errorf("%w: session %q has attach number %d, not %d", store.ErrConflict, o.id, old.Attach, o.attach)
	}
	s := *old
	s.Checkpoint = max(s.Checkpoint, o.checkpoint)
	s.Used = b.nextVersion()
	b.putSession(&s)
	b.putPositions(o.id, o.checkpoint, o.positions)
	return nil
}
