package room

import "github.com/reprise-chat/reprise/server/internal/fault"

// Position is what a client says it holds of a room.
type Position struct {
	// Incarnation of Offset; empty means whichever is current.
	Incarnation string
	Offset      uint64
	// Earlier is the newest offset held under each earlier incarnation that
	// the client saw, newest first.
	Earlier []Held
}

// Held is the end of what a client holds under one incarnation.
type Held struct {
	Incarnation string
	Offset      uint64
}

// Locate says where delivery to a client at p starts: at p, if the log has
// p's incarnation and reaches p's offset under it; otherwise (rewound) at the
// newest place that client and log are known to share. The log alone decides;
// a stretch is what Kafka calls a leader epoch, and this is its
// OffsetsForLeaderEpoch.
func (r *Room) Locate(p Position) (at Held, rewound bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.Offset == 0 {
		return Held{}, false
	}
	if p.Incarnation == "" {
		at = Held{r.incarnationLocked(min(p.Offset, r.durable)), min(p.Offset, r.durable)}
		return at, at.Offset != p.Offset
	}
	if fault.Broken(fault.IgnoreIncarnation) {
		return Held{p.Incarnation, min(p.Offset, r.durable)}, false
	}
	if end, ok := r.endOfLocked(p.Incarnation); ok {
		return r.heldLocked(p.Incarnation, min(p.Offset, end)), p.Offset > end
	}
	for _, e := range p.Earlier {
		if end, ok := r.endOfLocked(e.Incarnation); ok {
			return r.heldLocked(e.Incarnation, min(e.Offset, end)), true
		}
	}
	return Held{}, true
}

// heldLocked names the place `offset` with the incarnation that it really
// belongs to: a client may hold an offset of an earlier stretch under the
// name of a later one only by mistake, and is then better told the truth.
func (r *Room) heldLocked(incarnation string, offset uint64) Held {
	if offset == 0 {
		return Held{}
	}
	if real := r.incarnationLocked(offset); real != incarnation {
		return Held{real, offset}
	}
	return Held{incarnation, offset}
}

// endOfLocked returns the last offset of the newest stretch of an incarnation.
func (r *Room) endOfLocked(incarnation string) (end uint64, ok bool) {
	end = r.durable
	for i := len(r.stretches) - 1; i >= 0; i-- {
		if r.stretches[i].Incarnation == incarnation {
			return end, true
		}
		end = r.stretches[i].First - 1
	}
	return 0, false
}

// Oldest returns the oldest retained offset, head+1 if nothing is.
func (r *Room) Oldest() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.oldest
}
