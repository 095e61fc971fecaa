package pebble

import (
	"bytes"
	"context"
	"strconv"

	db "github.com/cockroachdb/pebble/v2"

	"github.com/reprise-chat/reprise/server/internal/fault"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// incarnationOf returns the incarnation under which a room is appended to. A
// room that was made since the store was opened has its own: another one of its
// name may have been removed since, and clients may hold offsets of that.
func (s *Store) incarnationOf(number uint64) string {
	if number <= s.firstRooms || fault.Broken(fault.ShareIncarnation) {
		return s.incarnation
	}
	return s.incarnation + "." + strconv.FormatUint(number, 36)
}

// Incarnation implements [store.Log].
func (l *Log) Incarnation() string { return l.room.durable.Load().incarnation }

// Version implements [store.Store].
func (s *Store) Version() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view == nil {
		return 0
	}
	return s.view.version
}

// EmptyRooms implements [store.Store].
func (s *Store) EmptyRooms(ctx context.Context, after, upTo uint64, limit int) (rooms []store.EmptyRoom, err error) {
	if limit <= 0 || upTo <= after {
		return nil, ctx.Err()
	}
	err = s.look(ctx, func(v *view) error {
		return scan(v.snap, emptyKey(after+1), keyAfter(emptyKey(upTo)), func(key, value []byte) (bool, error) {
			version, err := parseEmptyKey(key)
			if err != nil {
				return false, badRecord(key, err)
			}
			rooms = append(rooms, store.EmptyRoom{Name: string(value), Version: version})
			return len(rooms) < limit, ctx.Err()
		})
	})
	return rooms, err
}

// RemoveRoom implements [store.Store].
func (s *Store) RemoveRoom(ctx context.Context, e store.EmptyRoom) (removed bool, err error) {
	r, err := s.room(e.Name)
	if err != nil {
		return false, err
	}
	o := &removeOp{awaited: newAwaited(), room: r, version: e.Version}
	err = s.do(ctx, o, o.awaited)
	return err == nil && o.removed, err
}

// removeOp removes a room if it is still without members.
type removeOp struct {
	awaited
	room    *room
	version uint64
	removed bool // by apply; read when the outcome is there
}

func (o *removeOp) cost() (events, bytes int) { return 1, 1 << 10 }

// apply removes a room in one piece, so that no crash leaves a part of it:
// however much there is, it is a few records and a few ranges.
func (o *removeOp) apply(b *batch) error {
	t := &o.room.truth
	if t.number == 0 || t.members > 0 || t.empty != o.version {
		return nil
	}
	if err := b.endInvitations(o.room); err != nil {
		return err
	}
	b.delete(roomKey(o.room.name))
	b.delete(tailKey(t.number))
	b.delete(emptyKey(t.empty))
	for _, kind := range []byte{prefixEvent, prefixClientID, prefixStretch, prefixMember, prefixInvitee} {
		from := appendRoomPrefix(nil, kind, t.number)
		b.deleteRange(from, prefixEnd(from))
	}
	b.change(o.room)
	*t = truth{}
	o.removed = true
	return nil
}

// endInvitations removes all open invitations to a room. What it reads it reads
// before it changes anything.
func (b *batch) endInvitations(r *room) error {
	prefix := appendRoomPrefix(nil, prefixInvitee, r.truth.number)
	users := make(map[string]bool)
	note := func(key, value []byte) error {
		user := string(key[len(prefix):])
		i, err := decodeInvitation(r.name, user, value)
		if err != nil {
			return badRecord(key, err)
		}
		users[user] = true
		b.note(key, value)
		return b.load(givenKey(user, i.By))
	}
	err := scan(b.c.s.db, prefix, prefixEnd(prefix), func(key, value []byte) (bool, error) {
		if _, known := b.small[string(key)]; known {
			return true, nil
		}
		return true, note(bytes.Clone(key), bytes.Clone(value))
	})
	if err != nil {
		return err
	}
	for key, value := range b.small {
		if value != nil && bytes.HasPrefix([]byte(key), prefix) && !users[key[len(prefix):]] {
			if err := note([]byte(key), value); err != nil {
				return err
			}
		}
	}
	for user := range users {
		b.endInvitation(r, user)
	}
	return nil
}

// upgrade brings a store of format 1 to the present one: rooms without members
// are indexed. It can be cut off at any point and begun again.
func (s *Store) upgrade() error {
	version, err := getUint64(s.db, keyVersion)
	if err != nil {
		return err
	}
	b := s.db.NewBatch()
	defer b.Close() // always nil
	prefix := roomKey("")
	err = scan(s.db, prefix, prefixEnd(prefix), func(key, value []byte) (bool, error) {
		name := string(key[1:])
		number, _, err := decodeRoom(name, value)
		if err != nil {
			return false, badRecord(key, err)
		}
		t := truth{number: number}
		if err := t.read(s.db, name); err != nil {
			return false, err
		}
		if t.members == 0 && t.empty == 0 {
			version++
			t.empty = version
			must(b.Set(emptyKey(version), []byte(name), nil))
			(&batch{db: b}).putTail(&t)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	must(b.Set(keyVersion, encodeUint64(version), nil))
	must(b.Set(keyFormat, encodeUint64(formatVersion), nil))
	return b.Commit(db.Sync)
}
