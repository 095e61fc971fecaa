package attach

import (
	"context"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/room"
)

// Tail is the wish to read one room without a session.
type Tail struct {
	User  string
	Room  string
	From  room.Position
	Last  uint64
	Limit uint64
	// Follow goes on live when caught up.
	Follow bool
}

// Tail sends one room to stream. The caller serves the stream until Done and
// then calls Close. room.ErrNotFound if the user is not a member.
func (m *Manager) Tail(ctx context.Context, stream Stream, t Tail) (*Attachment, error) {
	r, err := m.rooms.Acquire(ctx, t.Room)
	if err != nil {
		return nil, err
	}
	a, err := m.new(stream, t.User, "", 0)
	if err != nil {
		r.Release()
		return nil, err
	}
	a.follow, a.limit = t.Follow, t.Limit
	p := &place{a: a, replay: &replay{initial: true}}
	p.queued.Store(true)
	p.cursor.Place(r)
	a.places = []*place{p}
	member, err := r.Member(ctx, t.User) // after new, which has the end told
	if err != nil {
		a.abandon(err)
		return nil, err
	}
	p.joined = member.Joined
	if t.Last > 0 {
		p.startNewest(t.Last)
	} else {
		p.start(t.From)
	}
	at := &attaching{a: a, outcome: reprisev1.Outcome_OUTCOME_EXACT}
	if !at.armPlace(p) {
		p.replay = nil
	}
	a.begin()
	return a, nil
}
