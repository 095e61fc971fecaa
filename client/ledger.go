package reprise

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

const (
	// maxGaps bounds the open gaps kept of one room; the oldest go first.
	maxGaps = 64
	// maxAckRuns bounds what is remembered of acknowledgements that are in no
	// checkpoint; further ones merge.
	maxAckRuns = 64
)

// ledger is what a client holds: its session, and for each room what was
// handled, what of that is saved, and what of that the server has stored.
// Only the goroutine that delivers changes positions, so what it was told
// (admit) still holds when it has run the handler (advance).
type ledger struct {
	strict bool // Saved.Strict; static

	mu      sync.Mutex
	session SessionKey
	rooms   map[string]*entry

	// Changed since the last changes().
	sessionDirty bool
	closed       map[string]struct{}

	// via is the attachment that may acknowledge; acks is what was handled of
	// what it sent and is not acknowledged yet, ackBytes its size.
	via      *attachment
	acks     map[string]Position
	ackBytes int
	// accepted counts the acknowledgements that via had accepted; runs holds
	// those that are in no checkpoint yet, oldest first. confirmed is what any
	// further checkpoint includes.
	accepted  uint64
	runs      []ackRun
	confirmed map[string]Position
}

// ackRun is one acknowledgement, or several if checkpoints are slow to come.
type ackRun struct {
	last      uint64 // number of the newest one
	positions map[string]Position
}

// entry is a client's place in one room.
type entry struct {
	handled Position
	saved   Position
	isSaved bool
	// moved: handled since the checkpoint of the session.
	moved bool
	dirty bool
	gaps  []Gap
	// pending is the recoverable gap that the handler is being given: it may
	// fetch it at once.
	pending []Gap
}

// withPending returns the open gaps once the pending one is handled.
func (e *entry) withPending() []Gap {
	gaps := slices.Concat(e.gaps, e.pending)
	return gaps[max(0, len(gaps)-maxGaps):]
}

// verdict is what to do with something that a stream brought.
type verdict int

const (
	next      verdict = iota // hand it over
	duplicate                // held already: drop it
	hole                     // something before it is missing: drop the stream
)

func newLedger(s Saved) *ledger {
	l := &ledger{strict: s.Strict, session: s.Session, rooms: make(map[string]*entry, len(s.Places))}
	l.reset()
	for _, p := range s.Places {
		l.rooms[p.Position.Room] = &entry{
			handled: p.Position, saved: p.Position, isSaved: true, moved: p.Moved, gaps: p.Gaps,
		}
	}
	return l
}

func (l *ledger) reset() {
	l.closed = make(map[string]struct{})
	l.acks = make(map[string]Position)
	l.confirmed = make(map[string]Position)
}

// resume returns what a resume names: the session and the saved positions
// that moved since its checkpoint, all of them if there is none. Positions
// that are handled but not saved are not named, because the server would
// take them as acknowledged.
func (l *ledger) resume() (SessionKey, []Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var named []Position
	for _, e := range l.rooms {
		if e.isSaved && (e.moved || l.session.Checkpoint == "") {
			named = append(named, e.saved)
		}
	}
	return l.session, named
}

// isNew reports whether there is nothing to go on from: neither a session, nor
// positions, nor a program that would miss them.
func (l *ledger) isNew() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session.ID == "" && len(l.rooms) == 0 && !l.strict
}

// knows reports whether there is a place in a room.
func (l *ledger) knows(room string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.rooms[room]
	return ok
}

// forgetCheckpoint makes the next resume name every position.
func (l *ledger) forgetCheckpoint() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session.Checkpoint != "" {
		l.session.Checkpoint, l.sessionDirty = "", true
	}
}

// attached makes a the attachment that acknowledges. The positions it named
// are what the server goes by now.
func (l *ledger) attached(a *attachment, w *reprisev1.Welcome, named []Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := SessionKey{ID: w.GetSessionId(), ResumeKey: w.GetResumeKey()}
	if key.ID == l.session.ID {
		key.Checkpoint = l.session.Checkpoint
	} else {
		// Checkpoints are of a session; a fork or a rebuilt one has its own.
		for _, e := range l.rooms {
			e.moved, e.dirty = true, true
		}
	}
	l.session, l.sessionDirty = key, true
	l.via, l.ackBytes = a, 0
	l.accepted, l.runs = 0, nil
	clear(l.acks)
	clear(l.confirmed)
	for _, p := range named {
		l.confirmed[p.Room] = p
	}
}

// admitEvent says what to do with an event, and where its handling leads.
func (l *ledger) admitEvent(room, incarnation string, e *reprisev1.Event) (verdict, Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held, ok := l.rooms[room]
	switch {
	case !ok:
		return hole, Position{}
	case held.handled.holds(incarnation, e.GetOffset()):
		return duplicate, held.handled
	case e.GetAfter() != held.handled.Offset || e.GetOffset() <= e.GetAfter():
		return hole, held.handled
	}
	p := held.handled.advance(incarnation, e.GetOffset())
	p.Gaps = held.gaps
	return next, p
}

// admitGap says what to do with a gap, and clips it to what is not held.
func (l *ledger) admitGap(g *reprisev1.Gap) (verdict, Gap) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held, ok := l.rooms[g.GetRoom()]
	switch {
	case !ok:
		return hole, Gap{}
	case held.handled.holds(g.GetIncarnation(), g.GetLast()):
		return duplicate, Gap{}
	case g.GetFirst() > held.handled.Offset+1 || g.GetLast() <= held.handled.Offset:
		return hole, Gap{}
	}
	gap := gapOf(g)
	gap.First = held.handled.Offset + 1
	gap.earlier = held.handled.advance(gap.Incarnation, gap.Last).Earlier
	held.pending = nil
	if gap.Recoverable {
		open := gap
		open.earlier = nil
		held.pending = []Gap{open}
	}
	gap.gaps = held.withPending()
	return next, gap
}

// admitRewind says what to do with a rewind.
func (l *ledger) admitRewind(r *reprisev1.Rewind) (verdict, Rewind) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held, ok := l.rooms[r.GetRoom()]
	if !ok || r.GetTo() > held.handled.Offset {
		return hole, Rewind{}
	}
	back := held.handled.rewind(r.GetIncarnation(), r.GetTo())
	var gaps []Gap
	for _, g := range held.gaps {
		if g.Last = min(g.Last, back.Offset); g.First <= g.Last {
			gaps = append(gaps, g)
		}
	}
	return next, Rewind{Room: back.Room, To: back.Offset, Incarnation: back.Incarnation, earlier: back.Earlier, gaps: gaps}
}

// admitRoom says what to do with a RoomState: delivery must not start beyond
// what is held.
func (l *ledger) admitRoom(p Position) verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held, ok := l.rooms[p.Room]; ok && p.Offset > held.handled.Offset {
		return hole
	}
	return next
}

// admitCaughtUp says whether a room really has reached an offset.
func (l *ledger) admitCaughtUp(room string, offset uint64) verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held, ok := l.rooms[room]; ok && held.handled.Offset < offset {
		return hole
	}
	return next
}

// opened starts a room at p, if it is new.
func (l *ledger) opened(a *attachment, p Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.rooms[p.Room]; ok {
		return
	}
	l.rooms[p.Room] = &entry{handled: p, moved: true, dirty: true}
	delete(l.closed, p.Room)
	if a == l.via {
		l.confirmed[p.Room] = p
	}
}

// forget drops a room that the user is no longer a member of.
func (l *ledger) forget(room string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.rooms, room)
	delete(l.acks, room)
	delete(l.confirmed, room)
	l.closed[room] = struct{}{}
}

// advance records that everything up to p, which came on a, was handled. It
// returns how many bytes now wait to be acknowledged.
func (l *ledger) advance(a *attachment, p Position, size int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moveTo(p)
	return l.acknowledge(a, p, size)
}

// passed records that a sent something up to p that was handled before: it
// too wants an acknowledgement, or a's window stays filled.
func (l *ledger) passed(a *attachment, p Position, size int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acknowledge(a, p, size)
}

func (l *ledger) moveTo(p Position) *entry {
	e, ok := l.rooms[p.Room]
	if !ok {
		e = &entry{}
		l.rooms[p.Room] = e
	}
	p.Gaps = nil // they change by themselves
	e.handled, e.moved, e.dirty = p, true, true
	return e
}

func (l *ledger) acknowledge(a *attachment, p Position, size int) int {
	if a != l.via {
		return 0 // it was replaced, and is not listened to any more
	}
	l.acks[p.Room] = p
	l.ackBytes += size
	return l.ackBytes
}

// gapHandled records a gap that was handed over.
func (l *ledger) gapHandled(a *attachment, g Gap) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.moveTo(g.Position())
	e.gaps, e.pending = e.withPending(), nil
	l.acknowledge(a, g.Position(), 0)
}

// rewound records a rewind that was handed over. There is nothing to
// acknowledge: the server goes by it already.
func (l *ledger) rewound(r Rewind) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moveTo(r.Position()).gaps = r.gaps
	delete(l.acks, r.Room)
}

// changes returns what has to be saved, and what may be acknowledged, on
// which attachment, when that is done.
func (l *ledger) changes() (Update, *attachment, map[string]Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var u Update
	if l.sessionDirty {
		session := l.session
		u.Session, l.sessionDirty = &session, false
	}
	for _, e := range l.rooms {
		if e.dirty {
			u.Places = append(u.Places, Place{Position: e.handled, Moved: e.moved, Gaps: e.gaps})
			e.dirty = false
		}
	}
	for room := range l.closed {
		u.Closed = append(u.Closed, room)
	}
	clear(l.closed)
	acks := l.acks
	l.acks, l.ackBytes = make(map[string]Position), 0
	for room, p := range acks {
		if e := l.rooms[room]; e != nil && e.handled.same(p) {
			acks[room] = e.handled // with its earlier stretches
		}
	}
	return u, l.via, acks
}

// savedUpdate records that u is saved.
func (l *ledger) savedUpdate(u Update) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range u.Places {
		if e, ok := l.rooms[p.Position.Room]; ok {
			e.saved, e.isSaved = p.Position, true
		}
	}
}

// acceptAck records that the server has accepted an acknowledgement of a.
// Receipts come in the order of what they answer.
func (l *ledger) acceptAck(a *attachment, positions []Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a != l.via {
		return
	}
	l.accepted++
	if len(l.runs) < maxAckRuns {
		l.runs = append(l.runs, ackRun{positions: make(map[string]Position, len(positions))})
	}
	run := &l.runs[len(l.runs)-1]
	run.last = l.accepted
	for _, p := range positions {
		run.positions[p.Room] = p
	}
}

// checkpoint records that the first `acks` accepted acknowledgements of a, and
// what it named at the attach, are stored: what has not moved since need not
// be named at the next resume. It is saved together with the next position, or
// at the end; until then the resume names more than it must, which does no
// harm.
func (l *ledger) checkpoint(a *attachment, id string, acks uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a != l.via || id == "" {
		return
	}
	l.session.Checkpoint, l.sessionDirty = id, true
	for len(l.runs) > 0 && l.runs[0].last <= acks {
		maps.Copy(l.confirmed, l.runs[0].positions)
		l.runs = l.runs[1:]
	}
	for room, p := range l.confirmed {
		if e, ok := l.rooms[room]; ok && e.moved && e.handled.same(p) {
			e.moved, e.dirty = false, true
		}
	}
	clear(l.confirmed)
}

// describe is for the error of a hole.
func (l *ledger) describe(room string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.rooms[room]; ok {
		return fmt.Sprintf("%s/%d is held", e.handled.Incarnation, e.handled.Offset)
	}
	return "the room is not known"
}
