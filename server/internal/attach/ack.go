package attach

import (
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// Acked is a position that a client says it has handled.
type Acked struct {
	Room, Incarnation string
	Offset            uint64
}

// Acknowledge takes cumulative positions: all of them or, with an error, none.
// ErrBeyondSent if one is beyond what was sent on this attachment,
// room.ErrNotFound if one is of a room the attachment has no place in.
func (a *Attachment) Acknowledge(ps []Acked) error {
	if len(ps) == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	moved := make([]store.Position, 0, len(ps))
	places := make([]*place, 0, len(ps))
	for _, p := range ps {
		at := a.placeLocked(p.Room)
		if at == nil {
			return room.ErrNotFound
		}
		if p.Offset > at.sent {
			return ErrBeyondSent
		}
		if p.Offset <= at.acked {
			continue // cumulative: nothing new
		}
		incarnation := at.cursor.Room().Incarnation(p.Offset)
		if p.Incarnation != "" && p.Incarnation != incarnation {
			return ErrBeyondSent // never sent under that name
		}
		moved = append(moved, store.Position{Room: p.Room, Incarnation: incarnation, Offset: p.Offset})
		places = append(places, at)
	}
	if err := a.attached.Session.Acknowledge(a.attached.Attach, moved); err != nil {
		return err
	}
	for i, at := range places {
		at.ackLocked(moved[i].Offset)
	}
	if a.scheduleLocked() { // the window may have opened
		defer a.push(true)
	}
	return nil
}
