package pebble

import (
	"errors"
	"fmt"
	"sort"

	storev1 "github.com/reprise-chat/reprise/gen/reprise/store/v1"
	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// checkedRoom is what was found out about a room.
type checkedRoom struct {
	c      *checker
	name   string
	number uint64
	tail   *storev1.Tail // nil if there is none
	// tailLost: whether there is one is not known.
	tailLost bool
	oldest   uint64
	head     uint64
	// whole: all events could be read, so that what is not there is missing.
	whole bool

	stretches []store.Stretch
	clientIDs uint64 // of events
	// changes are the memberships as the retained events leave them.
	changes map[string]membership

	// While the events are read.
	next      uint64 // the offset that should come
	afterHole bool   // what was before it could not be read
	total     uint64 // of bytes, at the event before
}

// membership is the last change of one, as an event or a record says.
type membership struct {
	joined bool
	offset uint64
}

func (r *checkedRoom) bad(offset uint64, format string, a ...any) {
	r.c.found(Problem{Room: r.name, Offset: offset, Detail: fmt.Sprintf(format, a...)})
}

// checkRooms reads every room with all that is numbered by it.
func (c *checker) checkRooms() error {
	c.rooms, c.numbers = make(map[string]*checkedRoom), make(map[uint64]*checkedRoom)
	var rooms []*checkedRoom
	whole, err := c.scan([]byte{prefixRoom}, "the rooms", func(key, value []byte) {
		if r := c.room(key, value); r != nil {
			rooms = append(rooms, r)
		}
	})
	c.whole = whole
	for _, r := range rooms {
		if err == nil {
			err = r.check()
		}
	}
	return err
}

// room returns the room of a record; nil if that is malformed.
func (c *checker) room(key, value []byte) *checkedRoom {
	name := string(key[1:])
	number, _, err := decodeRoom(name, value)
	if err != nil {
		c.bad(key, "%v", err)
		return nil
	}
	r := &checkedRoom{c: c, name: name, number: number, changes: make(map[string]membership)}
	if other := c.numbers[number]; other != nil {
		r.bad(0, "it has the number %d, and so has room %q", number, other.name)
		return nil
	}
	if number > c.lastRoom {
		r.bad(0, "it has the number %d, and the newest room should have %d", number, c.lastRoom)
	}
	c.rooms[name], c.numbers[number] = r, r
	return r
}

func (r *checkedRoom) check() error {
	r.c.begin()
	r.readTail()
	for _, part := range []func() error{r.checkEvents, r.checkStretches, r.checkMembers, r.checkInvitees, r.checkClientIDs} {
		r.c.begin()
		if err := part(); err != nil {
			return err
		}
	}
	r.changes = nil
	r.c.report.Rooms++
	return nil
}

func (r *checkedRoom) readTail() {
	r.oldest = 1
	key := tailKey(r.number)
	value, ok := r.c.value(key)
	if !ok {
		r.tailLost = r.c.unread > r.c.trusted
		return
	}
	tail, err := decodeTail(value)
	if err != nil {
		r.bad(0, "its tail is malformed: %v", err)
		return
	}
	r.tail, r.oldest, r.head = tail, tail.GetOldest(), tail.GetHead()
}

// checkEvents reads the log from the oldest event to the head. Where events
// cannot be read it goes on behind them.
func (r *checkedRoom) checkEvents() error {
	r.next, r.whole = r.oldest, !r.tailLost
	lower, upper := appendRoomPrefix(nil, prefixEvent, r.number), prefixEnd(appendRoomPrefix(nil, prefixEvent, r.number))
	var why error // what is before r.next's event cannot be read
	for {
		err := scan(r.c.db, lower, upper, func(key, value []byte) (bool, error) {
			r.c.begin()
			if why != nil {
				r.skipped(key, why)
				why = nil
			}
			r.event(key, value)
			return true, r.c.step()
		})
		if err := r.c.ctx.Err(); err != nil {
			return err
		}
		if err == nil {
			break
		}
		r.whole, why = false, err
		readable, ok := r.readableAfter(r.next)
		if !ok {
			break
		}
		lower = eventKey(r.number, readable)
	}
	r.c.begin()
	if why != nil {
		r.c.lost(why, fmt.Sprintf("the events of room %q from %d on", r.name, r.next), false)
		return nil
	}
	r.checkHead()
	return nil
}

func (r *checkedRoom) checkHead() {
	switch last := r.next - 1; {
	case last < r.head:
		r.bad(r.next, "the events up to %d are missing", r.head)
	case last == 0:
		r.bad(0, "it has no event")
	default:
		r.head = last
	}
}

// skipped notes that the events before the one of key cannot be read.
func (r *checkedRoom) skipped(key []byte, why error) {
	_, offset, err := parseEventKey(key)
	if err != nil || offset <= r.next {
		offset = r.next + 1
	}
	r.c.lost(why, fmt.Sprintf("events %d to %d of room %q", r.next, offset-1, r.name), false)
	r.c.begin()
	r.next, r.afterHole = offset, true
}

// readableAfter returns the first offset after one that cannot be read of which
// it can be told what is there. The events of a block follow one another.
func (r *checkedRoom) readableAfter(offset uint64) (uint64, bool) {
	readable := func(o uint64) bool {
		_, _, err := get(r.c.db, eventKey(r.number, o))
		return err == nil
	}
	const most = 1 << 40
	bad, step := offset, uint64(1)
	for !readable(bad + step) {
		bad, step = bad+step, 2*step
		if step > most {
			return 0, false
		}
	}
	n := sort.Search(int(step), func(i int) bool { return readable(bad + 1 + uint64(i)) })
	return bad + 1 + uint64(n), true
}

// event checks one event of the log.
func (r *checkedRoom) event(key, value []byte) {
	_, offset, err := parseEventKey(key)
	if err != nil {
		r.bad(r.next, "the key %q is malformed", key)
		return
	}
	r.c.report.Events++
	if r.tailLost && r.next == 1 { // the oldest is the first that there is
		r.oldest, r.next, r.afterHole = offset, offset, true
	}
	if offset < r.next {
		r.bad(offset, "it is before the oldest event, %d", r.oldest)
		return
	}
	first := offset == r.oldest || r.afterHole
	r.afterHole = false
	if offset > r.next {
		r.missing(r.next, offset-1)
		first = true // what the total was before is not known
	}
	r.next = offset + 1
	total, element, err := splitEvent(value)
	if err != nil {
		r.bad(offset, "%v", err)
		return
	}
	r.checkTotal(offset, total, uint64(len(element)), first)
	r.c.report.Bytes += uint64(len(element))
	r.element(offset, element)
}

func (r *checkedRoom) missing(first, last uint64) {
	if first == last {
		r.bad(first, "the event is missing")
		return
	}
	r.bad(first, "the events from here to %d are missing", last)
}

// checkTotal checks the running total of bytes.
func (r *checkedRoom) checkTotal(offset, total, size uint64, first bool) {
	want := r.total + size
	switch {
	case offset == 1:
		want = size
	case first:
		want = max(total, size)
	}
	if total != want {
		r.bad(offset, "the running total of bytes is %d, and should be %d", total, want)
	}
	if r.tail != nil && offset == r.tail.GetHead() && total != r.tail.GetBytes() {
		r.bad(offset, "the running total of bytes is %d, and was %d", total, r.tail.GetBytes())
	}
	r.total = total
}

// element checks the event itself, and that its client id is indexed.
func (r *checkedRoom) element(offset uint64, element []byte) {
	has, after, err := event.Where(element)
	if err != nil {
		r.bad(offset, "%v", err)
		return
	}
	if has != offset || after != offset-1 {
		r.bad(offset, "the event says offset %d after %d", has, after)
	}
	e, err := event.Decode(element)
	if err != nil {
		r.bad(offset, "%v", err)
		return
	}
	switch m := e.GetMemberChange(); m.GetKind() {
	case reprisev1.MemberChange_KIND_JOINED, reprisev1.MemberChange_KIND_LEFT:
		r.changes[m.GetUser()] = membership{m.GetKind() == reprisev1.MemberChange_KIND_JOINED, offset}
	}
	if e.GetClientId() == "" {
		return
	}
	r.clientIDs++
	at, ok := r.c.number(appendClientIDKey(nil, r.number, e.GetSender(), e.GetClientId()))
	if !ok || at != offset {
		r.bad(offset, "its client id is not in the index, or is there for another event: a retry would be published again (it says %d)", at)
	}
}

// checkStretches reads which incarnations the log is of.
func (r *checkedRoom) checkStretches() error {
	whole, err := r.c.scan(appendRoomPrefix(nil, prefixStretch, r.number), fmt.Sprintf("the stretches of room %q", r.name), func(key, value []byte) {
		_, first, err := parseStretchKey(key)
		if err != nil || len(value) == 0 {
			r.c.bad(key, "malformed stretch")
			return
		}
		if n := len(r.stretches); n > 0 && r.stretches[n-1].Incarnation == string(value) {
			r.bad(first, "two stretches in a row are of incarnation %q", value)
		}
		if r.whole && first > r.head {
			r.bad(first, "a stretch begins here, beyond the head, %d", r.head)
		}
		r.stretches = append(r.stretches, store.Stretch{Incarnation: string(value), First: first})
	})
	if whole && (len(r.stretches) == 0 || r.stretches[0].First != 1) {
		r.bad(1, "no stretch begins here: the incarnation of the log is not known")
	}
	return err
}

// checkMembers compares the members with the events and with the users' own
// records.
func (r *checkedRoom) checkMembers() error {
	var count uint64
	prefix := appendRoomPrefix(nil, prefixMember, r.number)
	whole, err := r.c.scan(prefix, fmt.Sprintf("the members of room %q", r.name), func(key, value []byte) {
		user, keyErr := parseMemberKey(key)
		joined, err := decodeUint64(value)
		if err := errors.Join(keyErr, err); err != nil {
			r.c.bad(key, "%v", err)
			return
		}
		count++
		r.member(user, joined)
	})
	r.c.report.Members += count
	if err != nil || !whole {
		return err
	}
	for user, m := range r.changes { // what is left has no record
		if m.joined && r.whole {
			r.bad(m.offset, "the event says that %q joined, who is no member", user)
		}
	}
	switch {
	case r.tail != nil && uint64(r.tail.GetMembers()) != count:
		r.bad(0, "it has %d members, and should have %d", count, r.tail.GetMembers())
	case r.tail == nil && !r.tailLost && count > 0:
		r.bad(0, "it has %d members and no count of them", count)
	case r.c.format > 1 && r.tail != nil && (count == 0) != (r.tail.GetEmpty() != 0):
		r.bad(0, "it has %d members, and its place among the empty rooms is %d", count, r.tail.GetEmpty())
	}
	return nil
}

// member checks the record of a membership.
func (r *checkedRoom) member(user string, joined uint64) {
	if joined == 0 || r.whole && joined > r.head {
		r.bad(joined, "member %q joined at an offset that there is not; the head is %d", user, r.head)
	}
	m, said := r.changes[user]
	switch {
	case said && r.whole && (!m.joined || m.offset != joined):
		r.bad(m.offset, "the event ends or renews the membership of %q, and the record says: member since %d", user, joined)
	case !said && r.whole && joined >= r.oldest:
		r.bad(joined, "the event does not say that %q joined, and the record does", user)
	}
	delete(r.changes, user)
	value, ok := r.c.value(userRoomKey(user, r.name))
	u, err := decodeUserRoom(r.name, value)
	if !ok || err != nil || !u.Joined || u.Offset != joined {
		r.bad(joined, "%q is a member, and the user's own record does not say so", user)
	}
}

// checkClientIDs looks for entries of the index that no event has. Each event
// has found its own, so there are some only if there are more.
func (r *checkedRoom) checkClientIDs() error {
	var count uint64
	prefix := appendRoomPrefix(nil, prefixClientID, r.number)
	whole, err := r.c.scan(prefix, fmt.Sprintf("the client ids of room %q", r.name), func(_, _ []byte) { count++ })
	r.c.report.ClientIDs += count
	if err != nil || !whole || !r.whole || count <= r.clientIDs {
		return err
	}
	_, err = r.c.scan(prefix, fmt.Sprintf("the client ids of room %q", r.name), func(key, value []byte) {
		offset, err := decodeUint64(value)
		if err == nil && offset >= r.oldest && offset <= r.head && r.has(offset, key) {
			return
		}
		r.bad(offset, "the index has a client id at this offset that the event there does not have (record %q)", key)
	})
	return err
}

// has reports whether key is of the client id of the event at offset.
func (r *checkedRoom) has(offset uint64, key []byte) bool {
	value, ok := r.c.value(eventKey(r.number, offset))
	if !ok {
		return false
	}
	_, element, err := splitEvent(value)
	if err != nil {
		return false
	}
	e, err := event.Decode(element)
	return err == nil && string(appendClientIDKey(nil, r.number, e.GetSender(), e.GetClientId())) == string(key)
}
