package pebble

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	db "github.com/cockroachdb/pebble/v2"

	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// Log is a [store.Log].
type Log struct {
	s    *Store
	room *room
	// broken: an append failed at its turn, so that all later ones do. Owned by
	// the committer.
	broken bool
}

var _ store.Log = (*Log)(nil)

// OpenLog implements [store.Store]. Two Logs of one room do no harm: they
// share the room's state, and one of two that append at once gets ErrConflict.
func (s *Store) OpenLog(ctx context.Context, name string) (store.Log, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if name == "" {
		return nil, errors.New("store: a room has a name")
	}
	r, err := s.room(name)
	if err != nil {
		return nil, err
	}
	return &Log{s: s, room: r}, nil
}

// State implements [store.Log].
func (l *Log) State() store.State { return l.room.durable.Load().state }

// Append implements [store.Log].
func (l *Log) Append(a *store.Append) error {
	if l.s.reserve.low() {
		return store.ErrDiskReserve
	}
	err := l.s.queue.put(newAppendOp(l, a))
	if errors.Is(err, store.ErrClosed) {
		return l.s.closedError()
	}
	return err
}

// acquire returns the newest view and the room's state in it.
func (l *Log) acquire(ctx context.Context) (*view, *durable, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	v, err := l.s.acquireLocked()
	if err != nil {
		return nil, nil, err
	}
	return v, l.room.durable.Load(), nil
}

// Read implements [store.Log].
func (l *Log) Read(ctx context.Context, after, to uint64, maxBytes int, buf []byte) (store.Page, error) {
	v, d, err := l.acquire(ctx)
	if err != nil {
		return store.Page{}, err
	}
	defer l.s.release(v)
	to = min(to, d.state.Head)
	if after >= to || to < d.state.Oldest {
		return store.Page{Data: buf}, nil
	}
	first := max(after+1, d.state.Oldest)
	iter, err := v.snap.NewIter(&db.IterOptions{
		// Never below the floor: a reader would walk over what was trimmed.
		LowerBound: eventKey(d.number, first),
		UpperBound: eventKey(d.number, to+1),
	})
	if err != nil {
		return store.Page{}, readError(err)
	}
	defer iter.Close() // its error is Error's
	if buf != nil {
		return l.page(iter, first, to, maxBytes, buf)
	}
	scratch := pageScratch.Get().(*[]byte)
	p, err := l.page(iter, first, to, maxBytes, (*scratch)[:0])
	if err == nil {
		*scratch = p.Data // it may have grown
		p.Data = slices.Clone(p.Data)
	}
	if cap(*scratch) <= maxScratch {
		pageScratch.Put(scratch)
	}
	return p, err
}

// maxScratch bounds the buffers that are kept for the next page.
const maxScratch = 256 << 10

// pageScratch has buffers in which pages are put together: a page whose size
// is known at its end is one allocation and not ten.
var pageScratch = sync.Pool{New: func() any { return new([]byte) }}

// page copies the events from first on, to at most `to`, and checks that each
// is where it belongs.
func (l *Log) page(iter *db.Iterator, first, to uint64, maxBytes int, buf []byte) (store.Page, error) {
	p := store.Page{Data: buf}
	start := len(buf)
	for iter.First(); iter.Valid(); iter.Next() {
		want := first
		if p.Last != 0 {
			want = p.Last + 1
		}
		value, err := iter.ValueAndErr()
		if err != nil {
			return store.Page{}, l.unreadable(want, err)
		}
		element, err := l.element(iter.Key(), value, want)
		if err != nil {
			return store.Page{}, err
		}
		if p.Last != 0 && len(p.Data)-start+len(element) > maxBytes {
			return p, nil
		}
		p.Data = append(p.Data, element...)
		p.First, p.Last = first, want
	}
	if err := iter.Error(); err != nil {
		return store.Page{}, l.unreadable(max(p.Last+1, first), err)
	}
	if p.Last != to {
		return store.Page{}, l.corrupt(max(p.Last+1, first), "the event is missing")
	}
	return p, nil
}

// unreadable says which event could not be read, and why.
func (l *Log) unreadable(offset uint64, err error) error {
	return fmt.Errorf("room %q: offset %d: %w", l.room.name, offset, readError(err))
}

// element returns the event of a pair that should be at offset want.
func (l *Log) element(key, value []byte, want uint64) ([]byte, error) {
	_, offset, err := parseEventKey(key)
	if err != nil || offset != want {
		return nil, l.corrupt(want, "the event is missing")
	}
	_, element, err := splitEvent(value)
	if err != nil {
		return nil, l.corrupt(want, err.Error())
	}
	has, after, err := event.Where(element)
	if err != nil {
		return nil, l.corrupt(want, err.Error())
	}
	if has != want || after != want-1 {
		return nil, l.corrupt(want, fmt.Sprintf("the event says offset %d after %d", has, after))
	}
	return element, nil
}

func (l *Log) corrupt(offset uint64, detail string) error {
	return &store.CorruptError{Room: l.room.name, Offset: offset, Detail: detail}
}

// Lookup implements [store.Log].
func (l *Log) Lookup(ctx context.Context, sender, clientID string) (uint64, error) {
	v, d, err := l.acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer l.s.release(v)
	if d.number == 0 || clientID == "" {
		return 0, nil
	}
	offset, err := getUint64(v.snap, appendClientIDKey(nil, d.number, sender, clientID))
	if err != nil || offset < d.state.Oldest {
		return 0, err
	}
	return offset, nil
}

// Member implements [store.Log].
func (l *Log) Member(ctx context.Context, user string) (store.Member, bool, error) {
	v, d, err := l.acquire(ctx)
	if err != nil {
		return store.Member{}, false, err
	}
	defer l.s.release(v)
	if d.number == 0 {
		return store.Member{}, false, nil
	}
	joined, err := getUint64(v.snap, memberKey(d.number, user))
	if err != nil || joined == 0 {
		return store.Member{}, false, err
	}
	return store.Member{User: user, Joined: joined}, true, nil
}

// Members implements [store.Log].
func (l *Log) Members(ctx context.Context, from string, limit int) ([]store.Member, error) {
	v, d, err := l.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer l.s.release(v)
	if d.number == 0 || limit <= 0 {
		return nil, nil
	}
	lower, upper := memberKey(d.number, from), prefixEnd(memberKey(d.number, ""))
	var members []store.Member
	err = scan(v.snap, lower, upper, func(key, value []byte) (bool, error) {
		user, keyErr := parseMemberKey(key)
		joined, err := decodeUint64(value)
		if err := errors.Join(keyErr, err); err != nil {
			return false, badRecord(key, err)
		}
		members = append(members, store.Member{User: user, Joined: joined})
		return len(members) < limit, ctx.Err()
	})
	return members, err
}

// Invitation implements [store.Log].
func (l *Log) Invitation(ctx context.Context, user string) (i store.Invitation, ok bool, err error) {
	v, d, err := l.acquire(ctx)
	if err != nil {
		return store.Invitation{}, false, err
	}
	defer l.s.release(v)
	if d.number == 0 {
		return store.Invitation{}, false, nil
	}
	key := inviteeKey(d.number, user)
	value, ok, err := get(v.snap, key)
	if err != nil || !ok {
		return store.Invitation{}, false, err
	}
	if i, err = decodeInvitation(l.room.name, user, value); err != nil {
		return store.Invitation{}, false, badRecord(key, err)
	}
	return i, true, nil
}

// CountInvitedBy implements [store.Log].
func (l *Log) CountInvitedBy(ctx context.Context, by string) (n int, err error) {
	v, d, err := l.acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer l.s.release(v)
	if d.number == 0 {
		return 0, nil
	}
	prefix := inviteeKey(d.number, "")
	err = scan(v.snap, prefix, prefixEnd(prefix), func(key, value []byte) (bool, error) {
		i, err := decodeInvitation(l.room.name, string(key[len(prefix):]), value)
		if err != nil {
			return false, badRecord(key, err)
		}
		if i.By == by {
			n++
		}
		return true, ctx.Err()
	})
	return n, err
}
