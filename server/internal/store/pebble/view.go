package pebble

import (
	"context"
	"errors"
	"fmt"
	"strings"

	db "github.com/cockroachdb/pebble/v2"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// view is the store as of one sync. See the package comment.
type view struct {
	snap *db.Snapshot
	// version is that of the newest change of a membership or a session in it.
	version uint64
	// refs counts the readers, and the store itself while it is the newest.
	refs int // guarded by Store.mu
}

// acquire returns the newest view, to be released by the caller.
func (s *Store) acquire(ctx context.Context) (*view, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acquireLocked()
}

func (s *Store) acquireLocked() (*view, error) {
	if s.view == nil {
		return nil, s.closedError()
	}
	s.view.refs++
	s.reading.Add(1)
	return s.view, nil
}

func (s *Store) release(v *view) {
	s.drop(v)
	s.reading.Done()
}

// drop gives up one reference.
func (s *Store) drop(v *view) {
	s.mu.Lock()
	v.refs--
	last := v.refs == 0
	s.mu.Unlock()
	if last {
		_ = v.snap.Close() // always nil
	}
}

// publish makes everything committed until now the newest view, and with it,
// in one step, the states of the rooms that changed: a reader that has both
// under the lock has two that agree.
func (s *Store) publish(version uint64, changed []*room) {
	v := &view{snap: s.db.NewSnapshot(), version: version, refs: 1}
	s.mu.Lock()
	old := s.view
	s.view = v
	for _, r := range changed {
		r.durable.Store(r.truth.publish())
		r.changed = false
	}
	s.mu.Unlock()
	if old != nil {
		s.drop(old)
	}
}

// get returns a copy of the value of a key; ok is false if there is none.
func get(r db.Reader, key []byte) (value []byte, ok bool, err error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, db.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, readError(err)
	}
	value = append([]byte(nil), v...)
	return value, true, closer.Close()
}

// getUint64 returns a number; 0 if there is none.
func getUint64(r db.Reader, key []byte) (uint64, error) {
	value, ok, err := get(r, key)
	if err != nil || !ok {
		return 0, err
	}
	n, err := decodeUint64(value)
	if err != nil {
		return 0, badRecord(key, err)
	}
	return n, nil
}

// scan calls f with the pairs of [lower, upper) until it returns false. They
// are valid only during the call.
func scan(r db.Reader, lower, upper []byte, f func(key, value []byte) (more bool, err error)) error {
	iter, err := r.NewIter(&db.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return readError(err)
	}
	defer iter.Close() // its error is Error's
	for ok := iter.First(); ok; ok = iter.Next() {
		value, err := iter.ValueAndErr()
		if err != nil {
			return readError(err)
		}
		if more, err := f(iter.Key(), value); err != nil || !more {
			return err
		}
	}
	return readError(iter.Error())
}

// readError translates an error of Pebble's.
func readError(err error) error {
	if err == nil {
		return nil
	}
	if db.IsCorruptionError(err) {
		return fmt.Errorf("%w: %w", store.ErrCorrupt, plainError{err})
	}
	return fmt.Errorf("%w: %w", store.ErrRead, plainError{err})
}

// plainError is an error of Pebble's as people should see it.
type plainError struct{ err error }

func (e plainError) Error() string { return firstLine(e.err) }
func (e plainError) Unwrap() error { return e.err }

// firstLine returns what an error of Pebble says to people: the lines below are
// for Pebble's own tools.
func firstLine(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	return s
}

// badRecord says that a record is not what was written.
func badRecord(key []byte, err error) error {
	return &store.CorruptError{Detail: fmt.Sprintf("record %q: %v", key, err)}
}
