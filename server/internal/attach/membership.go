package attach

import (
	"context"
	"slices"
	"strings"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// apply carries a change of the user's memberships out on this stream.
func (a *Attachment) apply(c change) error {
	a.mu.Lock()
	p := a.placeLocked(c.room)
	a.mu.Unlock()
	if !c.Joined {
		return a.leave(p, c)
	}
	if p == nil {
		return a.open(c.room, c.Offset)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.closing != nil && c.Offset > p.closing.frame.GetOffset() {
		p.closing.reopen = c.Offset
	}
	return nil
}

func (a *Attachment) leave(p *place, c change) error {
	if p == nil || c.Offset < p.joined {
		return nil // told at the attach
	}
	a.mu.Lock()
	p.closing = &closing{frame: &reprisev1.RoomClosed{
		Room: c.room, Reason: reprisev1.RoomClosed_REASON_LEFT, By: c.By, Offset: c.Offset,
	}}
	a.mu.Unlock()
	p.Wake()
	return nil
}

// open adds a room that the user has joined to the live stream.
func (a *Attachment) open(name string, joined uint64) error {
	r, err := a.m.rooms.Acquire(context.WithoutCancel(a.stream.Context()), name)
	if err != nil {
		return err
	}
	a.mu.Lock()
	history := uint64(a.histories[name])
	a.mu.Unlock()
	p := &place{a: a, joined: joined}
	from := max(joined-min(joined, history+1), min(joined, r.Oldest())-1)
	p.replay = &replay{gained: true, moved: true, position: &reprisev1.Position{
		Room: name, Offset: from, Incarnation: r.Incarnation(from),
	}}
	p.queued.Store(true) // no turn before RoomState
	p.replay.cut = p.cursor.Init(r, p, from)
	p.sent, p.acked = from, from
	if !a.addPlace(p) {
		p.cursor.Close()
		r.Release()
		return nil
	}
	f, err := p.state()
	if err == nil {
		err = a.stream.Send(f)
	}
	a.enqueue(p)
	return err
}

// closeIfOver sends RoomClosed when everything before it was sent, and reopens
// the room if the user has joined it again meanwhile.
func (a *Attachment) closeIfOver(p *place) (closed bool, err error) {
	a.mu.Lock()
	c := p.closing
	if c == nil || p.replay != nil || p.cursor.Pos() < c.frame.GetOffset() {
		a.mu.Unlock()
		return false, nil
	}
	p.gone = true
	p.forgetLocked()
	a.places = slices.DeleteFunc(a.places, func(q *place) bool { return q == p })
	a.mu.Unlock()
	p.cursor.Close()
	p.cursor.Room().Release()
	if err := a.stream.Send(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_RoomClosed{RoomClosed: c.frame}}); err != nil {
		return true, err
	}
	if c.reopen != 0 {
		return true, a.open(p.name(), c.reopen)
	}
	return true, nil
}

// addPlace adds a place to a stream that has begun; false if it has ended.
func (a *Attachment) addPlace(p *place) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.released || a.finished {
		return false
	}
	i, _ := slices.BinarySearchFunc(a.places, p.name(), func(q *place, name string) int {
		return strings.Compare(q.name(), name)
	})
	a.places = slices.Insert(a.places, i, p)
	return true
}
