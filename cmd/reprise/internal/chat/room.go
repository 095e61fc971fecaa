package chat

import (
	"slices"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/cmd/reprise/internal/line"
)

// maxEntries bounds what a room shows; older entries can be scrolled back to.
const maxEntries = 5000

// kind is how an entry is drawn.
type kind int

const (
	said    kind = iota // a message
	told                // something else that happened in the room
	warned              // a gap or a rewind
	noted               // words of the chat itself, in no log
	divided             // a line across: replayed events follow
)

// entry is something that a room shows.
type entry struct {
	kind   kind
	record line.Record // of an event, a gap or a rewind
	text   string      // of noted
	count  int         // of divided: how many events were replayed
	first  bool        // of divided: the person was away, not just the network

	drawn rows
}

// pending is a message of ours that is not in the room's log yet.
type pending struct {
	clientID string
	text     string
	sent     bool  // the server has it; its event is on the way
	err      error // it was refused
}

// room is what is shown of one room. It is data only: what it needs from a
// server it is given.
type room struct {
	name  string
	title string

	// entries are in the order of the log, notes where they came.
	entries []entry
	// pending are ours that have no event yet, in the order they were sent.
	pending []pending
	unread  int
	// joining: the chat asks to be let in again. What is entered meanwhile waits
	// in held.
	joining bool
	held    []outgoing

	// start is where delivery began: what is not after it comes by asking.
	start   uint64
	started bool // start is known
	// loading and complete say whether older events are asked for, and
	// whether there are none.
	loading  bool
	complete bool
	// dividing is the index of the divider that counts the replayed events
	// that are coming in, or -1.
	dividing int
	resumed  bool // a replay has ended before
}

func newRoom(name string) *room { return &room{name: name, dividing: -1} }

// begin says where delivery starts, the first time it is known.
func (r *room) begin(after uint64) {
	if !r.started {
		r.start, r.started = after, true
	}
}

// oldest returns the smallest offset that is held, or will be delivered: what
// is before it has to be asked for.
func (r *room) oldest() uint64 {
	for _, e := range r.entries {
		if e.record.Offset > 0 {
			return e.record.Offset
		}
	}
	return r.start + 1
}

// add takes an event that was delivered.
func (r *room) add(e reprise.Event, mine bool) {
	if mine && e.ClientID != "" {
		before := len(r.pending)
		r.pending = slices.DeleteFunc(r.pending, func(p pending) bool { return p.clientID == e.ClientID })
		mine = len(r.pending) < before
	}
	if e.Replayed && !mine {
		r.divide()
	}
	r.append(entryOf(e))
}

// divide counts a replayed event on the divider before the first of them.
func (r *room) divide() {
	if r.dividing < 0 {
		r.append(entry{kind: divided, first: !r.resumed})
		r.dividing = len(r.entries) - 1
	}
	d := &r.entries[r.dividing]
	d.count++
	d.drawn = rows{}
}

// caughtUp says that a replay has ended.
func (r *room) caughtUp() { r.dividing, r.resumed = -1, true }

// gap takes a range that is not delivered. When it can be asked for, what was
// before it goes, and scrolling back asks for all of it.
func (r *room) gap(g reprise.Gap) {
	if g.Recoverable {
		r.clear()
		r.start, r.started, r.complete = g.Last, true, false
	}
	r.append(entry{kind: warned, record: line.OfGap(g)})
}

// rewind forgets everything after an offset.
func (r *room) rewind(w reprise.Rewind) {
	r.entries = slices.DeleteFunc(r.entries, func(e entry) bool { return e.record.Offset > w.To })
	r.start = min(r.start, w.To)
	r.dividing = -1
	r.append(entry{kind: warned, record: line.OfRewind(w)})
}

func (r *room) clear() { r.entries, r.dividing = nil, -1 }

func (r *room) append(e entry) {
	r.entries = append(r.entries, e)
	if over := len(r.entries) - maxEntries; over > 0 {
		r.entries = slices.Delete(r.entries, 0, over)
		r.dividing = max(r.dividing-over, -1)
		r.complete = false
	}
}

// note shows words of the chat itself.
func (r *room) note(text string) { r.append(entry{kind: noted, text: text}) }

// prepend puts a page of older events in front.
func (r *room) prepend(page reprise.Page) {
	r.loading = false
	before := r.oldest()
	var older []entry
	if page.Gap != nil {
		older = append(older, entry{kind: warned, record: line.OfGap(*page.Gap)})
	}
	for _, e := range page.Events {
		// Not what was delivered, or rewound, while the page was on its way.
		if e.Offset < before {
			older = append(older, entryOf(e))
		}
	}
	r.complete = !page.More
	if r.dividing >= 0 {
		r.dividing += len(older)
	}
	r.entries = slices.DeleteFunc(r.entries, func(e entry) bool { return e.record.Type == "gap" && e.record.Recoverable })
	r.entries = append(older, r.entries...)
}

// settle takes the answer to a message of ours.
func (r *room) settle(clientID string, err error) {
	for i := range r.pending {
		if p := &r.pending[i]; p.clientID == clientID {
			p.sent, p.err = err == nil, err
		}
	}
}

func entryOf(e reprise.Event) entry {
	record := line.OfEvent(e)
	if record.Said() {
		return entry{kind: said, record: record}
	}
	return entry{kind: told, record: record}
}
