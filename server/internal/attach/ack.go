package attach

import (
	"github.com/reprise-chat/reprise/server/internal/store"
)

// Acked is a position that a client says it has handled.
type Acked struct {
	Room, Incarnation string
	Offset            uint64
}

// BeyondSentError says which position was refused with ErrBeyondSent.
type BeyondSentError struct {
	// Index is its place in the list.
	Index int
	// Sent is the newest offset sent in its room, and Incarnation the one that
	// it belongs to.
	Sent        uint64
	Incarnation string
}

func (e *BeyondSentError) Error() string { return ErrBeyondSent.Error() }

// Unwrap returns ErrBeyondSent.
func (e *BeyondSentError) Unwrap() error { return ErrBeyondSent }

// Acknowledge takes cumulative positions: all of them or, with an error, none. A
// *BeyondSentError if one is beyond what was sent on this attachment. Those of
// rooms that the attachment has no place in count for nothing: the user has left
// them, perhaps on another device and a moment ago.
func (a *Attachment) Acknowledge(ps []Acked) error {
	if len(ps) == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	moved := make([]store.Position, 0, len(ps))
	places := make([]*place, 0, len(ps))
	for i, p := range ps {
		at := a.placeLocked(p.Room)
		if at == nil {
			continue
		}
		r := at.cursor.Room()
		if p.Offset > at.sent {
			return &BeyondSentError{i, at.sent, r.Incarnation(at.sent)}
		}
		if p.Offset <= at.acked {
			continue // cumulative: nothing new
		}
		incarnation := r.Incarnation(p.Offset)
		if p.Incarnation != "" && p.Incarnation != incarnation {
			return &BeyondSentError{i, at.sent, r.Incarnation(at.sent)} // never sent under that name
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
	if l, push := a.scheduleLocked(prompt); push { // the window may have opened
		defer a.push(l, push)
	}
	return nil
}
