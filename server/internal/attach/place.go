package attach

import (
	"slices"
	"sync/atomic"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/room"
)

// place is an attachment's place in one room. There are very many, so they are
// kept small.
type place struct {
	a      *Attachment
	cursor room.Cursor
	joined uint64 // offset of the join event, as far as known

	// queued: on a.news, or about to be. Set by Wake, cleared by whoever takes
	// the place off the list, before looking at the room.
	queued atomic.Bool
	// Owned by the turn.
	gone   bool // closed, and may still be on the list
	paused bool // its events could not be read, and are not tried before retry
	told   bool // the client was told so

	// Guarded by a.mu.
	next    *place // on a.news
	sent    uint64 // newest offset handed to the stream, or held at the attach
	acked   uint64
	pieces  *[]piece // what was sent and not acknowledged; nil without a window
	closing *closing // the membership has ended

	// Owned by the turn.
	replay *replay // until caught up
}

// replay is what an attachment does in a room before it is live there.
type replay struct {
	position *reprisev1.Position // where the client is
	rewind   *reprisev1.Rewind
	gaps     []*reprisev1.Gap
	cut      uint64 // the head when the attachment was made
	gained   bool
	initial  bool // counts for CaughtUp of all rooms
	moved    bool // there is something to replay, to rewind or to name as gap
}

// closing is the end of a membership that the client has yet to be told.
type closing struct {
	frame *reprisev1.RoomClosed
	// later changes of the same membership wait until the client was told.
	later []change
}

// piece is a run of event bytes up to an offset.
type piece struct {
	last  uint64
	bytes int
}

// maxPieces bounds how finely a place remembers what it sent.
const maxPieces = 32

// Wake implements room.Subscriber.
func (p *place) Wake(readers int) { p.wake(laneOf(readers)) }

func (p *place) wake(l lane) {
	if p.queued.CompareAndSwap(false, true) {
		p.a.enqueue(p, l)
	}
}

// noteLocked records what is about to be sent.
func (p *place) noteLocked(last uint64, bytes int) {
	p.sent = max(p.sent, last)
	if p.a.window == 0 || bytes == 0 {
		return
	}
	p.a.unacked += bytes
	if p.pieces == nil {
		p.pieces = new([]piece)
	}
	if s := *p.pieces; len(s) >= maxPieces {
		s[len(s)-1].last = last
		s[len(s)-1].bytes += bytes
		return
	}
	*p.pieces = append(*p.pieces, piece{last, bytes})
}

// ackLocked records that the client has handled everything up to offset.
func (p *place) ackLocked(offset uint64) {
	p.acked = max(p.acked, offset)
	if p.pieces == nil {
		return
	}
	s, n := *p.pieces, 0
	for n < len(s) && s[n].last <= offset {
		p.a.unacked -= s[n].bytes
		n++
	}
	*p.pieces = slices.Delete(s, 0, n)
}

// forgetLocked takes the place's bytes out of the window: nobody will
// acknowledge them.
func (p *place) forgetLocked() {
	if p.pieces == nil {
		return
	}
	for _, q := range *p.pieces {
		p.a.unacked -= q.bytes
	}
	p.pieces = nil
}

func (p *place) name() string { return p.cursor.Room().Name() }

// state is the RoomState with which a room is opened.
func (p *place) state() (*reprisev1.ServerFrame, error) {
	info, err := p.cursor.Room().Info()
	if err != nil {
		return nil, err
	}
	s := &reprisev1.RoomState{Room: RoomProto(info)}
	if r := p.replay; r != nil {
		s.Position, s.Gained = r.position, r.gained
	}
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_RoomState{RoomState: s}}, nil
}

// news is a list of places, each of them at most once, linked by their next.
type news struct{ first, last *place }

func (n *news) empty() bool { return n.first == nil }

func (n *news) push(p *place) {
	if n.first == nil {
		n.first = p
	} else {
		n.last.next = p
	}
	n.last = p
}

func (n *news) pop() *place {
	p := n.first
	n.first, p.next = p.next, nil
	return p
}
