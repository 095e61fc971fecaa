package attach

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/fault"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// A room that cannot be read just now ends neither an attach nor a stream: the
// client is told (RoomUnavailable), the other rooms go on, and the room is tried
// again until it can be read. Its place has not moved meanwhile, so nothing is
// missing when it is back.

// The time between two tries of an attachment.
const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 10 * time.Second
)

// unavailableReason is the reason of a call that the same trouble refuses.
const unavailableReason = "ROOM_UNAVAILABLE"

// outage is what an attachment cannot read just now.
type outage struct {
	// Owned by the turn.
	absent  []*absent // rooms that could not be opened
	paused  []*place  // places whose events could not be read
	wait    time.Duration
	waiting bool // for the timer

	// Guarded by Attachment.mu.
	timer *time.Timer
	due   bool
}

// absent is a room that could not be opened, and how delivery of it will start.
type absent struct {
	room   string
	joined uint64 // offset of the join event
	start  start
	gained bool
	limit  uint64   // of its replay
	told   bool     // the client was
	later  []change // of the membership, for when the client has the room
}

// onlyThisRoom reports whether an error concerns no more than the room that it
// came with: the stream goes on without it.
func onlyThisRoom(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrClosed)
}

func (a *Attachment) outages() *outage {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.outage == nil {
		a.outage = new(outage)
	}
	return a.outage
}

// acquire returns a room in which readers can reach the join event.
func (a *Attachment) acquire(ctx context.Context, name string, joined uint64) (*room.Room, error) {
	r, err := a.m.rooms.Acquire(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := r.Reach(ctx, joined); err != nil {
		r.Release()
		return nil, err
	}
	return r, nil
}

// admit adds a room to the stream: now, or as soon as it can be opened.
func (a *Attachment) admit(b *absent) error {
	ctx := a.stream.Context()
	r, err := a.acquire(ctx, b.room, b.joined)
	switch {
	case err == nil:
		return a.arrive(b, r)
	case !onlyThisRoom(ctx, err):
		return err
	}
	o := a.outages()
	o.absent = append(o.absent, b)
	a.retryLater(o)
	if b.told {
		return nil
	}
	b.told = true
	return a.sendUnavailable(b.room)
}

// arrive begins the delivery of a room that is open.
func (a *Attachment) arrive(b *absent, r *room.Room) error {
	if _, err := r.Info(); err != nil { // there is no such room any more
		r.Release()
		return nil
	}
	p := &place{a: a, joined: b.joined, replay: &replay{gained: b.gained}}
	p.queued.Store(true) // no turn before RoomState
	p.cursor.Place(r)
	p.begin(b.start)
	at := &attaching{a: a, limit: b.limit}
	replayed := at.armPlace(p)
	p.replay.moved = true // so that CaughtUp follows
	if !a.addPlace(p) {
		p.cursor.Close()
		r.Release()
		return nil
	}
	a.mu.Lock()
	a.changes = append(b.later, a.changes...)
	a.mu.Unlock()
	a.recovered()
	err := a.sendState(p)
	if !replayed {
		p.wake(prompt)
	}
	return err
}

// unread is told that the events of a place could not be read. A Tail, which
// has no other room, ends.
func (a *Attachment) unread(p *place, err error) error {
	if a.attached == nil || !onlyThisRoom(a.stream.Context(), err) {
		return err
	}
	p.paused = true
	if fault.Broken(fault.SkipUnavailable) {
		if info, err := p.cursor.Room().Info(); err == nil {
			p.cursor.Skip(info.Head - 1)
		}
	}
	if r := p.replay; r != nil && r.initial {
		r.initial = false // the others' CaughtUp does not wait for it
		a.replays--
	}
	o := a.outages()
	o.paused = append(o.paused, p)
	a.retryLater(o)
	if p.told {
		return nil
	}
	p.told = true
	return a.sendUnavailable(p.name())
}

// readable is told that the events of a place after offset from can be read
// again. What follows is a replay.
func (a *Attachment) readable(p *place, from uint64) error {
	p.told = false
	a.recovered()
	r := p.cursor.Room()
	if p.replay == nil {
		p.replay = &replay{cut: from}
		if info, err := r.Info(); err == nil {
			p.replay.cut = info.Head
		}
	}
	p.replay.moved = true
	p.replay.position = &reprisev1.Position{Room: p.name(), Offset: from, Incarnation: r.Incarnation(from)}
	return a.sendState(p)
}

// retry tries again everything that could not be read.
func (a *Attachment) retry() (int, error) {
	o := a.outage
	paused, rooms := o.paused, o.absent
	o.paused, o.absent, o.waiting = nil, nil, false
	for _, p := range paused {
		if !p.gone {
			p.paused = false
			p.wake(prompt)
		}
	}
	for i, b := range rooms {
		if err := a.admit(b); err != nil {
			o.absent = append(o.absent, rooms[i+1:]...)
			return 0, err
		}
	}
	return 0, nil
}

// retryLater has retry called after a while that grows.
func (a *Attachment) retryLater(o *outage) {
	if o.waiting {
		return
	}
	o.waiting = true
	o.wait = min(max(2*o.wait, retryFirst), retryMost)
	d := o.wait/2 + rand.N(o.wait/2+1)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.released:
	case o.timer != nil:
		o.timer.Reset(d)
	default:
		o.timer = time.AfterFunc(d, func() {
			a.mu.Lock()
			o.due = true
			l, push := a.scheduleLocked(prompt)
			a.mu.Unlock()
			a.push(l, push)
		})
	}
}

// recovered begins the waits anew when nothing is out any more.
func (a *Attachment) recovered() {
	if o := a.outage; o != nil && len(o.absent)+len(o.paused) == 0 {
		o.wait = 0
	}
}

// absentRoom returns the room of that name if it could not be opened.
func (a *Attachment) absentRoom(name string) *absent {
	if a.outage == nil {
		return nil
	}
	for _, b := range a.outage.absent {
		if b.room == name {
			return b
		}
	}
	return nil
}

func (a *Attachment) sendUnavailable(room string) error {
	a.m.opts.Observer.Unavailable()
	return a.stream.Send(unavailableFrame(room))
}

func unavailableFrame(room string) *reprisev1.ServerFrame {
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_RoomUnavailable{
		RoomUnavailable: &reprisev1.RoomUnavailable{Room: room, Reason: unavailableReason},
	}}
}

// sendState sends the RoomState of a place. Of a room that does not exist any
// more there is none; that its members have left is on its way.
func (a *Attachment) sendState(p *place) error {
	f, err := p.state()
	if errors.Is(err, room.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.stream.Send(f)
}
