package reprise

import reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"

// maxEarlier is how many earlier stretches the contract lets a position have.
const maxEarlier = 8

// Position is a client's place in one room: it has handled everything up to
// and including Offset.
type Position struct {
	Room        string `json:"room"`
	Incarnation string `json:"incarnation,omitempty"`
	Offset      uint64 `json:"offset"`
	// Earlier is the newest offset handled under each earlier incarnation,
	// newest first, at most 8: where to go back to when Incarnation turns out
	// to be lost.
	Earlier []Stretch `json:"earlier,omitempty"`
	// Gaps are the open recoverable gaps below Offset, oldest first, at most
	// 64: see [Client.Gaps]. They are set in the positions that a Handler is
	// given.
	Gaps []Gap `json:"gaps,omitempty"`
}

// Stretch is the end of what a client has handled under one incarnation.
type Stretch struct {
	Incarnation string `json:"incarnation"`
	Offset      uint64 `json:"offset"`
}

// holds reports whether p's client has handled an offset of an incarnation.
func (p Position) holds(incarnation string, offset uint64) bool {
	if p.Incarnation == incarnation {
		return offset <= p.Offset
	}
	for _, s := range p.Earlier {
		if s.Incarnation == incarnation {
			return offset <= s.Offset
		}
	}
	return false
}

// advance returns the position after p at an offset of an incarnation.
func (p Position) advance(incarnation string, offset uint64) Position {
	if p.Incarnation != incarnation && p.Incarnation != "" && p.Offset > 0 {
		earlier := make([]Stretch, 0, maxEarlier)
		earlier = append(earlier, Stretch{Incarnation: p.Incarnation, Offset: p.Offset})
		for _, s := range p.Earlier {
			if s.Incarnation != incarnation && len(earlier) < maxEarlier {
				earlier = append(earlier, s)
			}
		}
		p.Earlier = earlier
	}
	p.Incarnation, p.Offset = incarnation, offset
	return p
}

// rewind returns the position after p went back to an offset.
func (p Position) rewind(incarnation string, to uint64) Position {
	back := Position{Room: p.Room, Incarnation: incarnation, Offset: to}
	if to == 0 {
		return back
	}
	if incarnation == p.Incarnation {
		back.Earlier = p.Earlier
		return back
	}
	for i, s := range p.Earlier {
		if s.Incarnation == incarnation {
			back.Earlier = p.Earlier[i+1:]
			return back
		}
	}
	for i, s := range p.Earlier {
		if s.Offset < to {
			back.Earlier = p.Earlier[i:]
			return back
		}
	}
	return back
}

// same reports whether two positions are at the same place.
func (p Position) same(q Position) bool {
	return p.Incarnation == q.Incarnation && p.Offset == q.Offset
}

func positionOf(room string, p *reprisev1.Position) Position {
	position := Position{Room: room, Incarnation: p.GetIncarnation(), Offset: p.GetOffset()}
	for _, s := range p.GetEarlier() {
		position.Earlier = append(position.Earlier, Stretch{Incarnation: s.GetIncarnation(), Offset: s.GetOffset()})
	}
	return position
}

func (p Position) proto() *reprisev1.Position {
	out := &reprisev1.Position{Room: p.Room, Incarnation: p.Incarnation, Offset: p.Offset}
	for _, s := range p.Earlier {
		out.Earlier = append(out.Earlier, &reprisev1.Stretch{Incarnation: s.Incarnation, Offset: s.Offset})
	}
	return out
}

func protoPositions(positions []Position) []*reprisev1.Position {
	out := make([]*reprisev1.Position, len(positions))
	for i, p := range positions {
		out[i] = p.proto()
	}
	return out
}
