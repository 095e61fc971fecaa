package attach

import (
	"slices"
	"strings"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/room"
)

// apply carries a change of the user's memberships out on this stream.
func (a *Attachment) apply(c change) error {
	a.mu.Lock()
	p := a.placeLocked(c.room)
	if p != nil && p.closing != nil {
		p.closing.later = addChange(p.closing.later, c)
		a.mu.Unlock()
		return nil
	}
	a.mu.Unlock()
	b := a.absentRoom(c.room)
	switch {
	case b != nil:
		if c.Offset > b.joined { // the client has the room first
			b.later = addChange(b.later, c)
		}
		return nil
	case c.Joined && p == nil && a.attached != nil:
		return a.open(c.room, c.Offset)
	case c.Joined, p == nil, c.Offset < p.joined:
		return nil // told at the attach
	}
	a.mu.Lock()
	p.closing = &closing{frame: &reprisev1.RoomClosed{
		Room: c.room, Reason: reprisev1.RoomClosed_REASON_LEFT, By: c.By, Offset: c.Offset,
	}}
	a.mu.Unlock()
	p.wake(prompt)
	return nil
}

// addChange adds a change to those that wait. A membership that has ended
// before the client could be told of it is not told of at all, so that at most
// two changes of a room wait, however long the client does not read.
func addChange(to []change, c change) []change {
	for i := len(to) - 1; i >= 0; i-- {
		if to[i].room != c.room {
			continue
		}
		if to[i].Joined && !c.Joined {
			return slices.Delete(to, i, i+1)
		}
		break
	}
	return append(to, c)
}

// open adds a room that the user has joined to the live stream.
func (a *Attachment) open(name string, joined uint64) error {
	a.mu.Lock()
	history := uint64(a.histories[name])
	delete(a.histories, name)
	a.mu.Unlock()
	return a.admit(&absent{
		room: name, joined: joined, gained: true, start: start{kind: startJoined, joined: joined, events: history},
	})
}

// closeIfOver sends RoomClosed when everything before it was sent. It comes in
// the place of what is left of the room's replay. A Tail ends.
func (a *Attachment) closeIfOver(p *place) (closed bool, err error) {
	a.mu.Lock()
	c := p.closing
	if c == nil || p.cursor.Pos() < c.frame.GetOffset() {
		a.mu.Unlock()
		return false, nil
	}
	if r := p.replay; r != nil && r.initial {
		a.replays--
	}
	p.gone, p.replay = true, nil
	p.forgetLocked()
	a.changes = append(c.later, a.changes...)
	a.places = slices.DeleteFunc(a.places, func(q *place) bool { return q == p })
	a.mu.Unlock()
	p.cursor.Close()
	p.cursor.Room().Release()
	if a.attached == nil {
		return true, room.ErrNotFound
	}
	return true, a.stream.Send(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_RoomClosed{RoomClosed: c.frame}})
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
