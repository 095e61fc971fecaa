package history

import "fmt"

// checkClients: skip, repeat, disagree, late, leak. It follows what each
// client holds of each room.
func checkClients(c *checker) {
	for _, p := range c.h.clients {
		f := follower{c: c, p: p, rooms: make(map[string]*holding)}
		for _, r := range c.h.steps[p] {
			f.step(r)
		}
		f.settle()
	}
}

type follower struct {
	c     *checker
	p     string
	rooms map[string]*holding
}

// holding is what a client holds of a room.
type holding struct {
	last      Record // the step by which it came to hold what it holds
	off       uint64
	closed    Record   // set from RoomClosed to the next RoomState
	up        bool     // caught up since the last Place
	delivered []Record // not yet compared; a Rewind takes some back
}

func (f *follower) step(r Record) {
	h := f.rooms[r.Room]
	switch r.K {
	case Place:
		if r.Ph != Call {
			f.begin(r)
		}
		return
	case Closed:
		if h != nil {
			h.closed = r
		}
		return
	case CaughtUp:
		if h != nil {
			h.up = true
		}
		return
	case Deliver, Gap, Rewind:
	default:
		return
	}
	if h == nil {
		f.c.report("P2", "skip", fmt.Sprintf("%s was given something of %s before it was told where that starts", f.p, r.Room), r)
		f.rooms[r.Room] = &holding{last: r, off: r.Off}
		return
	}
	if h.closed.K != "" {
		f.c.report("P7", "leak", fmt.Sprintf("%s was given something of %s after it was closed", f.p, r.Room), h.closed, r)
	}
	f.take(h, r)
}

// begin: the client holds what the server says it holds. A client that was
// there before must hold just that, unless it lost its own memory.
func (f *follower) begin(r Record) {
	h := f.rooms[r.Room]
	if h == nil {
		f.rooms[r.Room] = &holding{last: r, off: r.Off}
		return
	}
	if h.closed.K == "" && r.Off > h.off {
		f.c.report("P2", "skip", fmt.Sprintf("%s holds %d of %s, and delivery starts after %d", f.p, h.off, r.Room, r.Off), h.last, r)
	}
	if h.closed.K == "" && r.Off < h.off {
		f.c.report("P2", "repeat", fmt.Sprintf("%s holds %d of %s, and delivery starts after %d", f.p, h.off, r.Room, r.Off), h.last, r)
	}
	h.last, h.off, h.closed, h.up = r, r.Off, Record{}, false
}

func (f *follower) take(h *holding, r Record) {
	after := r.After
	switch r.K {
	case Gap:
		after = r.First - 1
	case Rewind:
		for n := len(h.delivered); n > 0 && h.delivered[n-1].Off > r.Off; n-- {
			h.delivered = h.delivered[:n-1]
		}
		h.last, h.off = r, r.Off
		return
	}
	switch {
	case after > h.off:
		f.c.report("P2", "skip", fmt.Sprintf("%s holds %d of %s and was given what comes after %d", f.p, h.off, r.Room, after), h.last, r)
	case after < h.off || r.Off <= h.off && r.K == Deliver:
		f.c.report("P2", "repeat", fmt.Sprintf("%s holds %d of %s and was given %d", f.p, h.off, r.Room, r.Off), h.last, r)
	}
	if r.K == Deliver {
		if r.Replayed && h.up {
			f.c.report("P3", "late", fmt.Sprintf("%s was given %d of %s as a replay after its replay had ended", f.p, r.Off, r.Room), h.last, r)
		}
		h.delivered = append(h.delivered, r)
	}
	h.last, h.off = r, r.Off
}

// settle compares what a client was given, and was not told to forget, with
// the final logs.
func (f *follower) settle() {
	for room, h := range f.rooms {
		oldest, known := f.c.h.oldest[room]
		if !known {
			continue // the room's log was not read
		}
		for _, d := range h.delivered {
			if d.ID != "" {
				f.c.sentBySomebody(d)
			}
			if d.Off < oldest {
				continue
			}
			switch fin, ok := f.c.h.at[placeOf(d)]; {
			case !ok:
				f.c.report("P3", "disagree", fmt.Sprintf("%s was given %d of %s, and the log has no such event", f.p, d.Off, room), d)
			case fin.ID != d.ID || fin.Hash != d.Hash || fin.After != d.After:
				f.c.report("P3", "disagree", fmt.Sprintf("%s was given another event at %d of %s than the log has", f.p, d.Off, room), d, fin)
			}
		}
	}
}
