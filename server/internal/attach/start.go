package attach

import (
	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/fault"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// start says where delivery of a room starts. It is decided from what is known
// of the client, so that a room that cannot be read just now can be started
// later.
type start struct {
	kind startKind
	at   room.Position // startAt
	// events before the head or the join event to begin with: startNewest,
	// startJoined.
	events uint64
	joined uint64 // offset of the join event: startJoined
}

type startKind int

const (
	startAt      startKind = iota // a position that may have to be rewound
	startNewest                   // the head
	startUnknown                  // the head, behind a Gap over everything
	startJoined                   // the join event
)

// begin places a cursor that has its room.
func (p *place) begin(s start) {
	switch s.kind {
	case startAt:
		p.start(s.at)
	case startNewest:
		p.startNewest(s.events)
	case startUnknown:
		p.startUnknown()
	case startJoined:
		r := p.cursor.Room()
		from := max(s.joined-min(s.joined, s.events+1), min(s.joined, r.Oldest())-1)
		p.replay.position = &reprisev1.Position{Room: r.Name(), Offset: from, Incarnation: r.Incarnation(from)}
		p.cursor.Skip(from)
	}
}

// start begins at a position that may have to be rewound.
func (p *place) start(pos room.Position) {
	r := p.cursor.Room()
	name := r.Name()
	held, rewound := r.Locate(pos)
	if rewound {
		p.replay.position = &reprisev1.Position{Room: name, Offset: pos.Offset, Incarnation: pos.Incarnation}
		p.replay.rewind = &reprisev1.Rewind{Room: name, To: held.Offset, Incarnation: held.Incarnation}
	} else {
		p.replay.position = &reprisev1.Position{Room: name, Offset: held.Offset, Incarnation: held.Incarnation}
	}
	if fault.Broken(fault.SkipOnResume) {
		held.Offset++
	}
	p.cursor.Skip(held.Offset)
}

// startNewest begins so that the newest events come first.
func (p *place) startNewest(events uint64) {
	r := p.cursor.Room()
	info, _ := r.Info() // a room with members exists
	from := max(info.Head-min(events, info.Head), info.Oldest-min(1, info.Oldest))
	p.replay.position = &reprisev1.Position{Room: r.Name(), Offset: from, Incarnation: r.Incarnation(from)}
	p.cursor.Skip(from)
}

// startUnknown begins at the head behind a Gap over everything.
func (p *place) startUnknown() {
	r := p.cursor.Room()
	info, _ := r.Info()
	p.replay.position = &reprisev1.Position{Room: r.Name()}
	p.replay.gaps = append(p.replay.gaps, &reprisev1.Gap{
		Room: r.Name(), First: 1, Last: info.Head, Incarnation: info.Incarnation,
		Reason:      reprisev1.GapReason_GAP_REASON_POSITION_UNKNOWN,
		Recoverable: info.Oldest <= info.Head,
	})
	p.cursor.Skip(info.Head)
}

// stored returns the place as a position to store. Before a Rewind that is
// what the client holds: should the Rewind be lost, the next attach makes it
// again. Without an incarnation it would not.
func (p *place) stored() store.Position {
	if pos := p.replay.position; p.replay.rewind != nil && pos.GetIncarnation() != "" {
		return store.Position{Room: p.name(), Offset: pos.GetOffset(), Incarnation: pos.GetIncarnation()}
	}
	offset := p.cursor.Pos()
	r := p.cursor.Room()
	return store.Position{Room: r.Name(), Offset: offset, Incarnation: r.Incarnation(offset)}
}

// stored returns the start of a room that could not be opened as a position to
// store, if it is one: what the client holds, as far as anybody can say.
func (b *absent) stored() (p store.Position, ok bool) {
	at := b.start.at
	return store.Position{Room: b.room, Offset: at.Offset, Incarnation: at.Incarnation}, b.start.kind == startAt
}
