package pebble

import (
	"encoding/binary"
	"fmt"

	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/store"

	storev1 "github.com/reprise-chat/reprise/gen/reprise/store/v1"
)

// appendOp is a queued append.
type appendOp struct {
	log    *Log
	append *store.Append
	bytes  int
}

func newAppendOp(l *Log, a *store.Append) *appendOp {
	o := &appendOp{log: l, append: a}
	for i := range a.Events {
		o.bytes += len(a.Events[i].Encoded)
	}
	return o
}

func (o *appendOp) cost() (events, bytes int) { return len(o.append.Events), o.bytes }

func (o *appendOp) done(err error) { o.append.Done(err) }

func (o *appendOp) apply(b *batch) error {
	if err := o.check(b); err != nil {
		o.log.broken = true
		return err
	}
	o.write(b)
	return nil
}

// check decides whether the append is accepted, by nothing but the room and the
// append: how full the disk is was looked at before it was queued. It changes
// nothing.
func (o *appendOp) check(b *batch) error {
	a, t := o.append, &o.log.room.truth
	switch {
	case o.log.broken:
		return fmt.Errorf("%w: an earlier append to this log failed", store.ErrConflict)
	case a.Expect != t.head:
		return fmt.Errorf("%w: head is %d, not %d", store.ErrConflict, t.head, a.Expect)
	case (a.Create == nil) != (t.number != 0):
		return fmt.Errorf("%w: room %q exists: %t", store.ErrConflict, o.log.room.name, t.number != 0)
	}
	if err := checkEvents(o.log.room.name, a); err != nil {
		return err
	}
	return o.checkMembers(b)
}

// checkEvents finds mistakes of the caller that would damage the log.
func checkEvents(room string, a *store.Append) error {
	if len(a.Events) == 0 {
		return fmt.Errorf("store: append of no events to room %q", room)
	}
	if a.Create != nil && a.Create.Name != room {
		return fmt.Errorf("store: room %q created by the name of %q", room, a.Create.Name)
	}
	for i := range a.Events {
		want := a.Expect + 1 + uint64(i)
		offset, after, err := event.Where(a.Events[i].Encoded)
		if err != nil {
			return fmt.Errorf("store: append to room %q: %w", room, err)
		}
		if offset != want || after != want-1 {
			return fmt.Errorf("store: append to room %q: event says offset %d after %d, want offset %d",
				room, offset, after, want)
		}
	}
	return nil
}

// checkMembers reads what changes of memberships depend on, so that write need
// not: it could fail.
func (o *appendOp) checkMembers(b *batch) error {
	last := o.append.Expect + uint64(len(o.append.Events))
	for i := range o.append.Members {
		m := &o.append.Members[i]
		if m.Offset <= o.append.Expect || m.Offset > last {
			return fmt.Errorf("store: member change of %q at offset %d, outside of its append", m.User, m.Offset)
		}
		if err := b.readMembership(o.log.room, m); err != nil {
			return err
		}
	}
	return nil
}

// write adds the append to the batch and to the truth. It cannot fail.
func (o *appendOp) write(b *batch) {
	r, a := o.log.room, o.append
	t := &r.truth
	b.change(r)
	if a.Create != nil {
		meta := *a.Create
		t.number, t.meta, t.oldest = b.nextRoom(), &meta, 1
		t.incarnation = b.c.s.incarnationOf(t.number)
		b.set(roomKey(r.name), encode(roomRecord(t.number, t.meta)))
	}
	if !t.inStretch(t.incarnation) {
		t.beginStretch(t.incarnation, t.head+1)
		b.set(stretchKey(t.number, t.head+1), []byte(t.incarnation))
	}
	for i := range a.Events {
		t.head++
		t.bytes += uint64(len(a.Events[i].Encoded))
		b.putEvent(t, &a.Events[i])
	}
	for i := range a.Members {
		b.changeMember(r, &a.Members[i])
	}
	if len(a.Members) > 0 || a.Create != nil {
		b.indexEmpty(r)
		b.putTail(t)
	}
}

// putEvent adds the event that is now t's newest, with its client id.
func (b *batch) putEvent(t *truth, e *store.Event) {
	d := b.db.SetDeferred(eventKeyLen, eventHeaderLen+len(e.Encoded))
	appendEventKey(d.Key[:0], t.number, t.head)
	binary.BigEndian.PutUint64(d.Value, t.bytes)
	copy(d.Value[eventHeaderLen:], e.Encoded)
	must(d.Finish())
	if e.ClientID == "" {
		return
	}
	b.key = appendClientIDKey(b.key[:0], t.number, e.Sender, e.ClientID)
	d = b.dedupe().SetDeferred(len(b.key), 8)
	copy(d.Key, b.key)
	binary.BigEndian.PutUint64(d.Value, t.head)
	must(d.Finish())
}

func (b *batch) putTail(t *truth) {
	b.set(tailKey(t.number), encode(&storev1.Tail{
		Oldest:  t.oldest,
		Head:    t.head,
		Bytes:   t.bytes,
		Members: t.members,
		Empty:   t.empty,
		Invited: t.invited,
	}))
}
