package pebble

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"weak"

	db "github.com/cockroachdb/pebble/v2"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// room is the state of a room that all its Logs and queued writes share. While
// one of them refers to it, the store finds it by name, so there are never two
// opinions of what the head is.
type room struct {
	name string

	load    sync.Once
	loadErr error // set by load

	// truth includes what is not durable yet. Owned by the committer once
	// loaded.
	truth truth
	// changed: truth is to be published with the next view. Owned by the
	// committer.
	changed bool
	// durable is what readers know. Stored under Store.mu, together with
	// Store.view.
	durable atomic.Pointer[durable]
}

// truth is the state of a room.
type truth struct {
	number    uint64 // 0: the room does not exist
	meta      *store.Meta
	head      uint64
	oldest    uint64
	bytes     uint64 // running total at head
	members   uint32
	invited   uint32
	empty     uint64          // place in the index of rooms without members; 0: it has some
	stretches []store.Stretch // never changed in place
	// incarnation is the one of what is appended next.
	incarnation string
}

// durable is a truth as published.
type durable struct {
	number      uint64
	incarnation string
	state       store.State
}

func (t *truth) publish() *durable {
	if t.number == 0 {
		return &durable{}
	}
	return &durable{number: t.number, incarnation: t.incarnation, state: store.State{
		Meta:      t.meta,
		Head:      t.head,
		Oldest:    t.oldest,
		Members:   t.members,
		Invited:   t.invited,
		Stretches: t.stretches,
	}}
}

// beginStretch notes that offsets from first on belong to incarnation.
func (t *truth) beginStretch(incarnation string, first uint64) {
	s := store.Stretch{Incarnation: incarnation, First: first}
	t.stretches = append(slices.Clip(t.stretches), s)
}

// inStretch reports whether the log's last stretch is of incarnation.
func (t *truth) inStretch(incarnation string) bool {
	n := len(t.stretches)
	return n > 0 && t.stretches[n-1].Incarnation == incarnation
}

// minRooms is the size from which the map of rooms is swept.
const minRooms = 64

// room returns the shared state of a room, loaded.
func (s *Store) room(name string) (*room, error) {
	r := s.findRoom(name)
	r.load.Do(func() { r.loadErr = s.loadRoom(r) })
	if r.loadErr != nil {
		s.forgetRoom(r) // the next caller tries again
		return nil, r.loadErr
	}
	return r, nil
}

func (s *Store) findRoom(name string) *room {
	s.roomsMu.Lock()
	defer s.roomsMu.Unlock()
	if r := s.rooms[name].Value(); r != nil {
		return r
	}
	if len(s.rooms) >= max(s.sweepAt, minRooms) {
		s.sweepRoomsLocked()
	}
	r := &room{name: name}
	s.rooms[name] = weak.Make(r)
	return r
}

// sweepRoomsLocked removes the rooms that nobody refers to. It runs when the
// map has doubled, so that its cost is shared by those who made it grow.
func (s *Store) sweepRoomsLocked() {
	for name, p := range s.rooms {
		if p.Value() == nil {
			delete(s.rooms, name)
		}
	}
	s.sweepAt = 2 * len(s.rooms)
}

func (s *Store) forgetRoom(r *room) {
	s.roomsMu.Lock()
	defer s.roomsMu.Unlock()
	if s.rooms[r.name].Value() == r {
		delete(s.rooms, r.name)
	}
}

// loadRoom reads the room's state. Nothing of the room can be queued: a queued
// write would have kept the former state alive, and found.
func (s *Store) loadRoom(r *room) error {
	// Not the context of one caller: all who open the room wait for this load.
	err := s.look(context.Background(), func(v *view) error {
		key := roomKey(r.name)
		value, ok, err := get(v.snap, key)
		if err != nil || !ok {
			return err
		}
		if r.truth.number, r.truth.meta, err = decodeRoom(r.name, value); err != nil {
			return badRecord(key, err)
		}
		r.truth.incarnation = s.incarnationOf(r.truth.number)
		return r.truth.read(v.snap, r.name)
	})
	if err != nil {
		return err
	}
	r.durable.Store(r.truth.publish())
	return nil
}

// read completes a truth that has its number.
func (t *truth) read(r db.Reader, name string) error {
	key := tailKey(t.number)
	value, ok, err := get(r, key)
	if err != nil {
		return err
	}
	t.oldest = 1
	if ok {
		tail, err := decodeTail(value)
		if err != nil {
			return badRecord(key, err)
		}
		t.oldest, t.head, t.bytes, t.members = tail.GetOldest(), tail.GetHead(), tail.GetBytes(), tail.GetMembers()
		t.invited, t.empty = tail.GetInvited(), tail.GetEmpty()
	}
	if err := t.readHead(r, name); err != nil {
		return err
	}
	return t.readStretches(r)
}

// readHead finds the newest event. The floor keeps the search from walking
// over what was trimmed.
func (t *truth) readHead(r db.Reader, name string) error {
	iter, err := r.NewIter(&db.IterOptions{
		LowerBound: eventKey(t.number, t.oldest),
		UpperBound: prefixEnd(appendRoomPrefix(nil, prefixEvent, t.number)),
	})
	if err != nil {
		return readError(err)
	}
	defer iter.Close() // its error is Error's
	if iter.Last() {
		value, err := iter.ValueAndErr()
		if err != nil {
			return readError(err)
		}
		_, head, keyErr := parseEventKey(iter.Key())
		total, _, valueErr := splitEvent(value)
		if keyErr != nil || valueErr != nil {
			return &store.CorruptError{Room: name, Offset: head, Detail: "newest event is malformed"}
		}
		t.bytes = total
		if head < t.head {
			return &store.CorruptError{Room: name, Offset: head,
				Detail: fmt.Sprintf("newest event is %d, but there was a %d", head, t.head)}
		}
		t.head = head
		return nil
	}
	if err := iter.Error(); err != nil {
		return readError(err)
	}
	if t.oldest <= t.head {
		return &store.CorruptError{Room: name, Offset: t.oldest, Detail: "events up to the head are missing"}
	}
	return nil
}

func (t *truth) readStretches(r db.Reader) error {
	prefix := appendRoomPrefix(nil, prefixStretch, t.number)
	return scan(r, prefix, prefixEnd(prefix), func(key, value []byte) (bool, error) {
		_, first, err := parseStretchKey(key)
		if err != nil {
			return false, badRecord(key, err)
		}
		t.beginStretch(string(value), first)
		return true, nil
	})
}
