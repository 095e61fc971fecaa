package attach

import (
	"slices"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/fault"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// arm cuts the heads, from which on everything is live, and lays out the
// frames that open the stream. The attach is committed.
func (at *attaching) arm() {
	a := at.a
	opening := []*reprisev1.ServerFrame{nil} // Welcome, when it can be written
	for _, p := range a.places {
		if acked, ok := a.attached.Newest(p.name()); ok {
			at.advance(p, acked)
		}
		if at.armPlace(p) || fault.Broken(fault.NameEverything) || at.outcome == reprisev1.Outcome_OUTCOME_NEW || p.replay.gained {
			opening = append(opening, nil)
			a.opened = append(a.opened, p)
		} else {
			p.replay = nil // verified unchanged: live from the start
		}
	}
	opening = at.armAbsent(opening)
	for _, ur := range at.lost {
		c := &reprisev1.RoomClosed{Room: ur.Room, By: ur.By, Offset: ur.Offset}
		if ur.Version > 0 {
			c.Reason = reprisev1.RoomClosed_REASON_LEFT
		}
		opening = append(opening, &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_RoomClosed{RoomClosed: c}})
	}
	if (at.broken || len(at.absent) > 0) && at.outcome == reprisev1.Outcome_OUTCOME_EXACT {
		at.outcome = reprisev1.Outcome_OUTCOME_WITH_GAPS
	}
	at.prioritise()
	opening[0] = &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Welcome{Welcome: at.welcome(len(opening) - 1)}}
	a.opening = opening
}

// armAbsent names the rooms that could not be opened, and has them tried again.
func (at *attaching) armAbsent(opening []*reprisev1.ServerFrame) []*reprisev1.ServerFrame {
	if len(at.absent) == 0 {
		return opening
	}
	a := at.a
	for _, b := range at.absent {
		acked, ok := a.attached.Newest(b.room)
		if _, claimed := at.claimed[b.room]; ok && !claimed && b.start.kind == startAt && acked.Offset > b.start.at.Offset {
			b.start.at = room.Position{Incarnation: acked.Incarnation, Offset: acked.Offset}
		}
		opening = append(opening, unavailableFrame(b.room))
		a.m.opts.Observer.Unavailable()
	}
	o := a.outages()
	o.absent = at.absent
	a.retryLater(o)
	return opening
}

// advance moves a place to what the old holder acknowledged while the attach
// was under way, unless the client named a position of its own.
func (at *attaching) advance(p *place, acked store.Position) {
	if _, claimed := at.claimed[p.name()]; !claimed && p.replay.rewind == nil && acked.Offset > p.cursor.Pos() {
		p.start(room.Position{Incarnation: acked.Incarnation, Offset: acked.Offset})
	}
}

// armPlace subscribes to the room and decides what is replayed. It reports
// whether the room moved.
func (at *attaching) armPlace(p *place) (moved bool) {
	a, r := at.a, p.replay
	from := p.cursor.Pos()
	r.cut = p.cursor.Init(p.cursor.Room(), p, from)
	if len(r.gaps) > 0 { // unknown: what was published since then is no replay
		r.gaps[0].Last, r.gaps[0].Incarnation = r.cut, p.cursor.Room().Incarnation(r.cut)
		from = r.cut
	}
	r.gaps = append(r.gaps, at.limits(p, from)...)
	end := from
	if n := len(r.gaps); n > 0 {
		end = max(end, r.gaps[n-1].Last)
	}
	moved = r.rewind != nil || len(r.gaps) > 0 || r.cut > from
	r.moved = moved
	at.broken = at.broken || r.rewind != nil || len(r.gaps) > 0
	at.replay += r.cut - min(end, r.cut)
	a.mu.Lock()
	p.sent, p.acked = p.cursor.Pos(), p.cursor.Pos()
	if moved {
		a.news.push(p)
		if r.initial {
			a.replays++
		}
	}
	a.mu.Unlock()
	if r.rewind != nil {
		a.m.opts.Observer.Rewind()
	}
	if !moved {
		p.queued.Store(false)
		if p.cursor.Behind() { // published between Init and here
			p.wake(prompt)
		}
	}
	return moved
}

// limits returns the gaps that retention and the replay limit make after
// offset from.
func (at *attaching) limits(p *place, from uint64) (gaps []*reprisev1.Gap) {
	r := p.cursor.Room()
	cut := p.replay.cut
	gap := func(last uint64, reason reprisev1.GapReason, recoverable bool) {
		gaps = append(gaps, &reprisev1.Gap{
			Room: r.Name(), First: from + 1, Last: last, Incarnation: r.Incarnation(last),
			Reason: reason, Recoverable: recoverable,
		})
		from = last
	}
	if oldest := r.Oldest(); from+1 < oldest {
		gap(oldest-1, reprisev1.GapReason_GAP_REASON_RETENTION, false)
	}
	if at.limit > 0 && cut > from && cut-from > at.limit {
		gap(cut-at.limit, reprisev1.GapReason_GAP_REASON_REPLAY_LIMIT, true)
	}
	return gaps
}

// prioritise puts the rooms in focus first.
func (at *attaching) prioritise() {
	a := at.a
	a.mu.Lock()
	defer a.mu.Unlock()
	var places []*place
	for !a.news.empty() {
		places = append(places, a.news.pop())
	}
	slices.SortStableFunc(places, func(p, q *place) int {
		return at.rank(p.name()) - at.rank(q.name())
	})
	for _, p := range places {
		a.news.push(p)
	}
}

func (at *attaching) rank(room string) int {
	if i := slices.Index(at.focus, room); i >= 0 {
		return i
	}
	return len(at.focus)
}
