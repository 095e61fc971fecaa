package history

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
)

// checkFinal: hole, duplicate in the log, phantom in the log.
func checkFinal(c *checker) {
	for _, room := range slices.Sorted(maps.Keys(c.h.final)) {
		var last Record
		for _, r := range c.h.final[room] {
			if last.K != "" && r.After != last.Off {
				c.report("P2", "hole", fmt.Sprintf("the log of %s goes from %d to an event after %d", room, last.Off, r.After), last, r)
			}
			last = r
		}
	}
	for _, id := range sortedIDs(c.h.byID) {
		events := c.h.byID[id]
		if len(events) > 1 {
			c.report("P4", "duplicate", fmt.Sprintf("%s is in the log of %s %d times", id.id, id.room, len(events)), events[0], events[1])
		}
		c.sentBySomebody(events[0])
	}
}

// sentBySomebody: phantom. r is an event with a client id.
func (c *checker) sentBySomebody(r Record) {
	calls := c.h.calls[idOf{r.Room, r.ID}]
	if len(calls) == 0 {
		c.report("P4", "phantom", fmt.Sprintf("%s is in %s, and nobody sent it", r.ID, r.Room), r)
		return
	}
	for _, k := range calls {
		if k.end.Ph != Fail {
			return
		}
	}
	c.report("P4", "phantom", fmt.Sprintf("%s is in %s, and every attempt to publish it was refused", r.ID, r.Room), calls[0].end, r)
}

// checkPublishes: lost, moved, duplicate in the receipts.
func checkPublishes(c *checker) {
	for _, id := range sortedIDs(c.h.calls) {
		var first Record
		for _, k := range c.h.calls[id] {
			if k.end.Ph != OK {
				continue
			}
			if first.K != "" && (k.end.Off != first.Off || k.end.Inc != first.Inc) {
				c.report("P4", "duplicate", id.id+" was acknowledged at two places", first, k.end)
			}
			first = k.end
			c.acknowledged(k)
		}
	}
}

func (c *checker) acknowledged(k call) {
	r := k.end
	if r.Off < c.h.oldest[r.Room] {
		return // retention
	}
	if got, ok := c.h.at[placeOf(r)]; ok && got.ID == r.ID {
		return
	}
	if at := c.h.byID[idOf{r.Room, r.ID}]; len(at) > 0 {
		c.report("P1", "moved", fmt.Sprintf("%s was acknowledged at %d and is at %d", r.ID, r.Off, at[0].Off), k.call, r, at[0])
		return
	}
	c.report("P1", "lost", fmt.Sprintf("%s was acknowledged at %d of %s and is not in its log", r.ID, r.Off, r.Room), k.call, r)
}

// checkOrder: order. In the order of their calls, no publish may have a
// smaller offset than the greatest that had been acknowledged before its call.
func checkOrder(c *checker) {
	greatest := make(map[string]Record) // acknowledged so far, by room
	floor := make(map[[3]string][]Record)
	for _, r := range c.h.records {
		if r.K != Publish {
			continue
		}
		key := [3]string{r.P, r.Room, r.ID}
		if r.Ph == Call {
			floor[key] = append(floor[key], greatest[r.Room])
			continue
		}
		before := floor[key]
		if len(before) == 0 {
			continue
		}
		floor[key] = before[1:]
		if r.Ph != OK {
			continue
		}
		// A retry may be told the offset of an attempt made long before.
		retried := len(c.h.calls[idOf{r.Room, r.ID}]) > 1
		if b := before[0]; b.K != "" && !retried && r.Off <= b.Off {
			c.report("P4", "order", fmt.Sprintf("%s was acknowledged at %d before %s was asked for, which got %d", b.ID, b.Off, r.ID, r.Off), b, r)
		}
		if r.Off > greatest[r.Room].Off {
			greatest[r.Room] = r
		}
	}
}

// checkFences: fenced, turned.
func checkFences(c *checker) {
	welcomed := make(map[string]Record) // the newest Welcome of each session
	when := make(map[string]int)        // and when it was that
	called := make(map[string]int)      // by client, when it asked for its last attach
	for i, r := range c.h.records {
		switch {
		case r.K == Attach && r.Ph == Call:
			called[r.P] = i
		case r.K == Attach && r.Ph == OK:
			// A Welcome that was asked for before the newer one came may be late.
			asked, known := called[r.P]
			late := known && asked < when[r.Session]
			if before := welcomed[r.Session]; before.K != "" && (r.Attach == before.Attach || r.Attach < before.Attach && !late) {
				c.report("P5", "turned", fmt.Sprintf("session %s was attached as %d after %d", r.Session, r.Attach, before.Attach), before, r)
			}
			if r.Attach > welcomed[r.Session].Attach {
				welcomed[r.Session], when[r.Session] = r, i
			}
		case r.K == Publish && r.Ph == Call && r.Session != "":
			newer := welcomed[r.Session]
			if newer.Attach <= r.Attach {
				continue
			}
			// Asked for after the newer Welcome: it must not be accepted, unless an
			// earlier attempt had been.
			calls := c.h.calls[idOf{r.Room, r.ID}]
			if calls[0].call == r && calls[0].end.Ph == OK {
				c.report("P5", "fenced", fmt.Sprintf("attachment %d of %s published after %d was welcomed", r.Attach, r.Session, newer.Attach), newer, r, calls[0].end)
			}
		}
	}
}

// checkResumes: unread, back.
func checkResumes(c *checker) {
	for _, p := range c.h.clients {
		w := resumes{c: c, p: p, confirmed: make(map[[2]string]Record), asked: make(map[string]Record), reached: make(map[string]Record)}
		for _, r := range c.h.steps[p] {
			w.step(r)
		}
	}
}

// resumes follows one client's attaches.
type resumes struct {
	c         *checker
	p         string
	called    Record               // the attach under way
	session   string               // of the last Welcome
	asked     map[string]Record    // positions the client asked to start at, by room
	confirmed map[[2]string]Record // by session and room
	reached   map[string]Record    // where the client is, by room
}

func (w *resumes) step(r Record) {
	switch r.K {
	case Attach:
		switch r.Ph {
		case Call:
			w.called = r
			clear(w.asked)
		case OK:
			w.session = r.Session
		}
	case Place:
		if r.Ph == Call {
			w.asked[r.Room] = r
			return
		}
		w.reached[r.Room] = r
		was := w.confirmed[[2]string{w.session, r.Room}]
		if asked := w.asked[r.Room]; asked.K == "" && r.Off < was.Off && r.Inc == was.Inc {
			w.c.report("P8", "back", fmt.Sprintf("position %d of %s was confirmed, and delivery starts after %d", was.Off, r.Room, r.Off), was, r)
		}
	case Confirmed:
		w.confirmed[[2]string{w.session, r.Room}] = r
	case Deliver, Gap, Rewind:
		w.reached[r.Room] = r
	case Closed, Unavailable:
		delete(w.reached, r.Room)
	case CaughtUp:
		if r.Room == "" {
			w.allUp(r)
		}
	}
}

// allUp: everything acknowledged, to anybody, before the attach was asked for
// has been reached.
func (w *resumes) allUp(up Record) {
	for room, at := range w.reached {
		if ack, ok := w.c.h.acknowledgedBefore(room, w.called.T); ok && at.Off < ack.Off {
			w.c.report("P1", "unread", fmt.Sprintf("%s is said to have caught up with %s, is at %d, and %d was acknowledged before", w.p, room, at.Off, ack.Off), ack, w.called, at, up)
		}
	}
}

// acknowledgedBefore returns the receipt with the greatest offset of a room
// that came before t and is still in the log.
func (h *history) acknowledgedBefore(room string, t int64) (best Record, ok bool) {
	rising := h.rising(room)
	i := sort.Search(len(rising), func(i int) bool { return rising[i].T >= t })
	if i == 0 {
		return Record{}, false
	}
	return rising[i-1], true
}

// rising returns the receipts of a room that were the greatest so far, in the
// order of time.
func (h *history) rising(room string) []Record {
	if h.greatest == nil {
		h.greatest = make(map[string][]Record)
		for _, r := range h.records {
			if _, kept := h.at[placeOf(r)]; r.K != Publish || r.Ph != OK || !kept {
				continue
			}
			if g := h.greatest[r.Room]; len(g) == 0 || r.Off > g[len(g)-1].Off {
				h.greatest[r.Room] = append(g, r)
			}
		}
	}
	return h.greatest[room]
}

func sortedIDs[V any](m map[idOf]V) []idOf {
	return slices.SortedFunc(maps.Keys(m), func(a, b idOf) int {
		return strings.Compare(a.room+"\x00"+a.id, b.room+"\x00"+b.id)
	})
}
