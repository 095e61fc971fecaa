package attach

import (
	"math"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/fault"
	"github.com/reprise-chat/reprise/server/internal/room"
)

const (
	// frameBytes bounds the events of one frame, unless one event is larger:
	// rooms are interleaved in pieces of this size. With its header and those
	// around it a frame just fits into one HTTP/2 frame of 16 KiB, and two into
	// the 32 KiB that grpc-go writes at once: a little more, and every other
	// write would be of a few bytes.
	frameBytes = 16<<10 - 256
	// turnBytes bounds what one turn sends before others have theirs.
	turnBytes = 64 << 10
)

// step is one thing to send: what comes next in a place, an answer, or what do
// sends. The frequent ones are values, because a closure would be garbage.
type step struct {
	place *place
	bytes int // of events that place may send
	reply []byte
	do    func() (int, error)
}

// take carries out a step and returns how many bytes of events it sent.
func (a *Attachment) take(s step) (int, error) {
	switch {
	case s.place != nil:
		return a.deliver(s.place, s.bytes)
	case s.reply != nil:
		defer func() { <-a.slots }()
		return 0, a.stream.SendEncoded(s.reply, nil, nil)
	default:
		return s.do()
	}
}

// turn sends what there is, up to a budget. It returns how many bytes of events
// that were, and whether the attachment must be pushed for another turn. A
// worker of the pool calls it; one at a time. from is the lane that the worker
// took it out of.
func (a *Attachment) turn(from lane) (sent int, again bool) {
	a.mu.Lock()
	a.inQueue[from] = false
	if !a.scheduled || a.turning { // it had its turn by the other lane
		a.mu.Unlock()
		return 0, false
	}
	a.turning = true
	a.mu.Unlock()
	for budget := turnBytes; budget > 0; {
		s, ok := a.nextStep()
		if !ok {
			return sent, false
		}
		n, err := a.take(s)
		if err != nil {
			a.finish(err)
		}
		sent += n
		// A frame costs something beside its bytes.
		budget -= n + 256
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turning = false
	return sent, a.enterLocked(from.again())
}

// nextStep chooses what to send next. False ends the turn: everything was
// sent, or the stream has ended.
func (a *Attachment) nextStep() (s step, ok bool) {
	a.mu.Lock()
	s, ok = a.chooseLocked()
	if !ok {
		a.scheduled, a.turning = false, false
	}
	over := a.finished
	a.mu.Unlock()
	if over {
		a.release()
	}
	return s, ok
}

// chooseLocked holds the order of frames (protocol.md): Welcome, RoomState and
// RoomClosed first; answers and control frames before events; CaughtUp for all
// rooms as soon as each of them has caught up.
func (a *Attachment) chooseLocked() (s step, ok bool) {
	switch {
	case a.finished:
		return step{}, false
	case len(a.opening) > 0:
		return step{do: a.sendOpening}, true
	case len(a.replies) > 0:
		s.reply = a.replies[0]
		a.replies[0] = nil
		a.replies = a.replies[1:]
		return s, true
	case a.ending != nil:
		// Answers may be due; their Reply brings us back.
		return step{do: a.sendEnding}, len(a.slots) == 0
	case a.heartbeat:
		a.heartbeat = false
		return a.send(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Heartbeat{Heartbeat: &reprisev1.Heartbeat{}}}), true
	case a.checkpoint != nil:
		c := a.checkpoint
		a.checkpoint = nil
		return a.send(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Checkpoint{Checkpoint: c}}), true
	case a.drain != nil:
		d := a.drain
		a.drain = nil
		return a.send(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Drain{Drain: d}}), true
	case len(a.changes) > 0:
		c := a.changes[0]
		a.changes = a.changes[1:]
		return step{do: func() (int, error) { return 0, a.apply(c) }}, true
	case a.outage != nil && a.outage.due:
		a.outage.due = false
		return step{do: a.retry}, true
	case a.replays == 0 && !a.caughtUp:
		return step{do: a.sendCaughtUp}, true
	case !a.news.empty() && (a.window == 0 || a.unacked < a.window):
		s.place, s.bytes = a.news.pop(), frameBytes
		if a.window > 0 {
			s.bytes = min(s.bytes, a.window-a.unacked)
		}
		return s, true
	}
	return step{}, false
}

func (a *Attachment) send(f *reprisev1.ServerFrame) step {
	return step{do: func() (int, error) { return 0, a.stream.Send(f) }}
}

func (a *Attachment) sendOpening() (int, error) {
	f := a.opening[0]
	if a.opening = a.opening[1:]; len(a.opening) == 0 {
		a.opening = nil // an empty slice would hold what is behind it
	}
	if f != nil {
		return 0, a.stream.Send(f)
	}
	p := a.opened[0]
	if a.opened = a.opened[1:]; len(a.opened) == 0 {
		a.opened = nil
	}
	err := a.sendState(p)
	if !p.replay.moved {
		p.replay = nil // live from the start
	}
	return 0, err
}

func (a *Attachment) sendCaughtUp() (int, error) {
	a.caughtUp = true
	err := a.stream.Send(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_CaughtUp{CaughtUp: &reprisev1.CaughtUp{}}})
	if err == nil && !a.follow {
		a.end(nil, nil)
	}
	return 0, err
}

func (a *Attachment) sendEnding() (int, error) {
	a.mu.Lock()
	e := a.ending
	a.mu.Unlock()
	if e.frame != nil {
		if err := a.stream.Send(e.frame); err != nil {
			return 0, err
		}
	}
	a.finish(e.err)
	return 0, nil
}

// deliver sends what comes next in one room: live, replay and catching up
// after a slow spell are the same.
func (a *Attachment) deliver(p *place, maxBytes int) (int, error) {
	if p.gone {
		return 0, nil
	}
	p.queued.Store(false) // before the look at the room: a Wake from now on counts
	if p.paused {
		return 0, nil
	}
	if fault.Broken(fault.DropSlow) {
		if info, err := p.cursor.Room().Info(); err == nil && info.Head > p.cursor.Pos()+100 {
			p.cursor.Skip(info.Head - 1)
		}
	}
	if err := a.sendBreaks(p); err != nil {
		return 0, err
	}
	n, err := a.sendEvents(p, maxBytes)
	if err != nil || p.paused {
		return n, err
	}
	if r := p.replay; r != nil && p.cursor.Pos() >= r.cut {
		if err := a.sendRoomCaughtUp(p); err != nil {
			return n, err
		}
	}
	if closed, err := a.closeIfOver(p); closed || err != nil {
		return n, err
	}
	if p.cursor.Behind() {
		p.wake(prompt) // any lane: the turn that is under way ends in its own
	}
	return n, nil
}

// sendBreaks sends the Rewind and the Gaps with which a replay begins.
func (a *Attachment) sendBreaks(p *place) error {
	r := p.replay
	if r == nil {
		return nil
	}
	if w := r.rewind; w != nil {
		r.rewind = nil
		if err := a.stream.Send(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Rewind{Rewind: w}}); err != nil {
			return err
		}
	}
	for ; len(r.gaps) > 0; r.gaps = r.gaps[1:] {
		if err := a.sendGap(p, r.gaps[0]); err != nil {
			return err
		}
	}
	return nil
}

func (a *Attachment) sendGap(p *place, g *reprisev1.Gap) error {
	p.cursor.Skip(g.GetLast())
	a.note(p, g.GetLast(), 0)
	a.m.opts.Observer.Gap(g.GetReason(), g.GetLast()-g.GetFirst()+1)
	return a.stream.Send(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Gap{Gap: g}})
}

// sendEvents sends one frame of events, or the Gap that retention made.
func (a *Attachment) sendEvents(p *place, maxBytes int) (int, error) {
	to := a.bound(p)
	if to != 0 && to <= p.cursor.Pos() {
		return 0, nil
	}
	from := p.cursor.Pos()
	b, err := p.cursor.Next(a.stream.Context(), to, maxBytes)
	if err != nil {
		return 0, a.unread(p, err)
	}
	if b.Last == 0 {
		return 0, nil
	}
	if p.told {
		if err := a.readable(p, from); err != nil {
			return 0, err
		}
	}
	if b.Trimmed {
		return 0, a.sendGap(p, &reprisev1.Gap{
			Room: p.name(), First: b.First, Last: b.Last, Incarnation: b.Incarnation,
			Reason: reprisev1.GapReason_GAP_REASON_RETENTION,
		})
	}
	rest, last := a.rest(p, b, to, maxBytes-len(b.Data))
	bytes := len(b.Data) + len(rest)
	if !a.noteEvents(p, last, bytes) {
		p.cursor.Skip(b.First - 1)
		return 0, nil
	}
	a.sent += last - b.First + 1
	a.m.opts.Observer.Delivered(p.replay != nil, last-b.First+1, bytes)
	if err := a.stream.SendEncoded(event.FrameHeader(p.name(), b.Incarnation, bytes), b.Data, rest); err != nil {
		return 0, err
	}
	if a.limit > 0 && a.sent >= a.limit {
		a.end(nil, nil)
	}
	return bytes, nil
}

// rest returns what a frame that holds b can take besides, and the frame's last
// offset. The room hands out one contiguous run at a time, and of a busy room a
// third of the runs end early, with a chunk of its tail: a frame costs the same
// whatever it holds.
func (a *Attachment) rest(p *place, b room.Batch, to uint64, maxBytes int) (elements []byte, last uint64) {
	if maxBytes < len(b.Data)/int(b.Last-b.First+1) { // no room for another like these
		return nil, b.Last
	}
	more, err := p.cursor.Next(a.stream.Context(), to, maxBytes)
	switch {
	case err != nil, more.Last == 0: // an error comes again with the next frame
		return nil, b.Last
	case more.Trimmed, more.Incarnation != b.Incarnation, len(more.Data) > maxBytes:
		p.cursor.Skip(b.Last)
		return nil, b.Last
	}
	return more.Data, more.Last
}

// bound returns the offset that the next frame must not pass; 0: none. A
// frame ends at the cut, so that CaughtUp stands where it belongs, and where
// the membership ended.
func (a *Attachment) bound(p *place) uint64 {
	var to uint64
	if p.replay != nil {
		to = p.replay.cut
	}
	if a.limit > 0 { // what it leaves may go beyond all offsets
		pos, left := p.cursor.Pos(), a.limit-min(a.sent, a.limit)
		if left <= math.MaxUint64-pos && (to == 0 || pos+left < to) {
			to = pos + left
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.closing != nil {
		if last := p.closing.frame.GetOffset(); to == 0 || last < to {
			to = last
		}
	}
	return to
}

func (a *Attachment) note(p *place, last uint64, bytes int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p.noteLocked(last, bytes)
}

// noteEvents is note for events, unless a change of membership has come since
// bound looked: they may be beyond its end. A membership's change is told
// before anything after it can be read.
func (a *Attachment) noteEvents(p *place, last uint64, bytes int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.changes) > 0 {
		return false
	}
	p.noteLocked(last, bytes)
	return true
}

func (a *Attachment) sendRoomCaughtUp(p *place) error {
	r := p.replay
	p.replay = nil
	if fault.Broken(fault.SubscribeLate) {
		if info, err := p.cursor.Room().Info(); err == nil {
			p.cursor.Skip(info.Head)
		}
	}
	if r.initial {
		a.replays--
	}
	return a.stream.Send(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_CaughtUp{CaughtUp: &reprisev1.CaughtUp{
		Room: p.name(), Offset: r.cut, Incarnation: p.cursor.Room().Incarnation(r.cut),
	}}})
}
