package reprise

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// deliver runs the handler until ctx ends or the handler fails.
func (r *run) deliver(ctx context.Context) error {
	for {
		it, err := r.inbox.pop(ctx)
		if err != nil {
			return nil
		}
		if err := r.deliverItem(ctx, it); err != nil {
			return err
		}
	}
}

func (r *run) deliverItem(ctx context.Context, it item) error {
	if it.from.broken {
		return nil
	}
	switch f := it.frame.GetFrame().(type) {
	case *reprisev1.ServerFrame_Events:
		return r.deliverEvents(ctx, it.from, f.Events)
	case *reprisev1.ServerFrame_Gap:
		return r.deliverGap(ctx, it.from, f.Gap)
	case *reprisev1.ServerFrame_Rewind:
		return r.deliverRewind(ctx, it.from, f.Rewind)
	case *reprisev1.ServerFrame_RoomState:
		return r.deliverRoom(ctx, it.from, f.RoomState)
	case *reprisev1.ServerFrame_RoomUnavailable:
		return r.deliverRoomUnavailable(ctx, it.from, f.RoomUnavailable)
	case *reprisev1.ServerFrame_RoomClosed:
		return r.deliverRoomClosed(ctx, it.from, f.RoomClosed)
	case *reprisev1.ServerFrame_CaughtUp:
		return r.deliverCaughtUp(ctx, it.from, f.CaughtUp)
	}
	return nil
}

// broken drops a stream that cannot be believed, with what it has sent after.
// The next one starts from what is held.
func (r *run) broken(a *attachment, room, what string, offset uint64) error {
	a.broken = true
	a.cancel(fmt.Errorf("%w: %s at offset %d of %s, where %s", ErrProtocol, what, offset, room, r.book.describe(room)))
	return nil
}

func (r *run) deliverEvents(ctx context.Context, a *attachment, f *reprisev1.Events) error {
	for _, p := range f.GetEvents() {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		size := proto.Size(p)
		if err := r.began(ctx, a, Position{Room: f.GetRoom(), Incarnation: f.GetIncarnation(), Offset: p.GetAfter()}); err != nil {
			return err
		}
		verdict, position := r.book.admitEvent(f.GetRoom(), f.GetIncarnation(), p)
		switch verdict {
		case hole:
			return r.broken(a, f.GetRoom(), "an event", p.GetOffset())
		case duplicate:
			sent := Position{Room: f.GetRoom(), Incarnation: f.GetIncarnation(), Offset: p.GetOffset()}
			r.saver.handled(r.book.passed(a, sent, size))
			r.replayed(a, f.GetRoom(), true)
			continue
		}
		e := eventOf(f.GetRoom(), f.GetIncarnation(), p)
		e.Replayed = !a.isLive(f.GetRoom())
		e.earlier, e.gaps = position.Earlier, position.Gaps
		if err := r.h.HandleEvent(ctx, e); err != nil {
			return fmt.Errorf("reprise: handling event %d of %s: %w", e.Offset, e.Room, err)
		}
		r.saver.handled(r.book.advance(a, position, size))
		r.replayed(a, f.GetRoom(), false)
	}
	return nil
}

// isLive reports whether a room has caught up on a. A room that was joined
// later replays after all the others have caught up.
func (a *attachment) isLive(room string) bool {
	if up, named := a.roomCaughtUp[room]; named {
		return up
	}
	return a.caughtUp
}

// replayed counts an event of a replay, or one that came twice. A status line
// does not need each of them.
func (r *run) replayed(a *attachment, room string, twice bool) {
	live := a.isLive(room)
	if live && !twice {
		return
	}
	r.c.state.progress(func(s *State) {
		if !live && s.Attach == a.welcome.GetAttach() {
			s.Replayed++
		}
		if twice {
			s.Duplicates++
		}
	})
}

// began begins a room of which there is no position and which the attach did
// not name: so the server has verified that nothing had happened after where it
// starts. That is the case when the program died before it was told of the room.
func (r *run) began(ctx context.Context, a *attachment, p Position) error {
	if r.book.knows(p.Room) || a.closed[p.Room] || a.welcome.GetOutcome() == reprisev1.Outcome_OUTCOME_NEW {
		return nil
	}
	return r.begin(ctx, a, p)
}

// begin gives a new room its start.
func (r *run) begin(ctx context.Context, a *attachment, p Position) error {
	if h, ok := r.h.(StartHandler); ok {
		if err := h.HandleStart(ctx, p); err != nil {
			return fmt.Errorf("reprise: handling the start of %s: %w", p.Room, err)
		}
	}
	delete(a.closed, p.Room)
	r.book.opened(a, p)
	r.saver.handled(0)
	return nil
}

func (r *run) deliverGap(ctx context.Context, a *attachment, f *reprisev1.Gap) error {
	if f.GetFirst() > 0 {
		if err := r.began(ctx, a, Position{Room: f.GetRoom(), Incarnation: f.GetIncarnation(), Offset: f.GetFirst() - 1}); err != nil {
			return err
		}
	}
	verdict, gap := r.book.admitGap(f)
	switch verdict {
	case hole:
		return r.broken(a, f.GetRoom(), "a gap", f.GetFirst())
	case duplicate:
		return nil
	}
	if err := r.h.HandleGap(ctx, gap); err != nil {
		return fmt.Errorf("reprise: handling the %s: %w", gap, err)
	}
	r.book.gapHandled(a, gap)
	r.saver.handled(0)
	r.c.state.update(func(s *State) { s.Gaps++ })
	return nil
}

func (r *run) deliverRewind(ctx context.Context, a *attachment, f *reprisev1.Rewind) error {
	verdict, rewind := r.book.admitRewind(f)
	if verdict == hole {
		return r.broken(a, f.GetRoom(), "a rewind", f.GetTo())
	}
	if err := r.h.HandleRewind(ctx, rewind); err != nil {
		return fmt.Errorf("reprise: handling the %s: %w", rewind, err)
	}
	r.book.rewound(rewind)
	r.saver.handled(0)
	r.c.state.update(func(s *State) { s.Rewinds++ })
	return nil
}

func (r *run) deliverRoom(ctx context.Context, a *attachment, f *reprisev1.RoomState) error {
	name := f.GetRoom().GetName()
	position := positionOf(name, f.GetPosition())
	if r.book.admitRoom(position) == hole {
		return r.broken(a, name, "a start", position.Offset)
	}
	if !r.book.knows(name) {
		if err := r.begin(ctx, a, position); err != nil {
			return err
		}
	}
	if h, ok := r.h.(RoomHandler); ok {
		state := RoomState{Room: f.GetRoom(), Position: position, Gained: f.GetGained()}
		if err := h.HandleRoom(ctx, state); err != nil {
			return fmt.Errorf("reprise: handling the state of %s: %w", name, err)
		}
	}
	a.roomCaughtUp[name] = false
	back := a.unavailable[name]
	delete(a.unavailable, name)
	if a.caughtUp && !back { // a room joined since; those before are in Welcome.rooms
		r.c.state.update(func(s *State) { s.Rooms++ })
	}
	return nil
}

// deliverRoomUnavailable passes on that nothing of a room comes until its next
// RoomState. There is nothing to do: the server tries again by itself.
func (r *run) deliverRoomUnavailable(ctx context.Context, a *attachment, f *reprisev1.RoomUnavailable) error {
	r.c.cfg.Logger.Warn("the server cannot read a room just now; it comes when it can", "room", f.GetRoom(), "reason", f.GetReason())
	if h, ok := r.h.(UnavailableHandler); ok {
		if err := h.HandleUnavailable(ctx, RoomUnavailable{Room: f.GetRoom(), Reason: f.GetReason()}); err != nil {
			return fmt.Errorf("reprise: handling that %s is unavailable: %w", f.GetRoom(), err)
		}
	}
	if !a.caughtUp || r.book.knows(f.GetRoom()) { // it counts among the rooms already
		a.unavailable[f.GetRoom()] = true
	}
	return nil
}

func (r *run) deliverRoomClosed(ctx context.Context, a *attachment, f *reprisev1.RoomClosed) error {
	closed := roomClosedOf(f)
	if !r.book.knows(closed.Room) && !a.unavailable[closed.Room] {
		a.closed[closed.Room] = true
		return nil // an earlier stream told it, and was lost before the server knew that
	}
	if h, ok := r.h.(RoomHandler); ok {
		if err := h.HandleRoomClosed(ctx, closed); err != nil {
			return fmt.Errorf("reprise: handling the end of %s: %w", closed.Room, err)
		}
	}
	r.book.forget(closed.Room)
	a.closed[closed.Room] = true
	r.saver.handled(0)
	if a.caughtUp { // those lost before are not in Welcome.rooms
		r.c.state.update(func(s *State) { s.Rooms-- })
	}
	return nil
}

func (r *run) deliverCaughtUp(ctx context.Context, a *attachment, f *reprisev1.CaughtUp) error {
	if f.GetRoom() != "" && r.book.admitCaughtUp(f.GetRoom(), f.GetOffset()) == hole {
		return r.broken(a, f.GetRoom(), "the end of the replay", f.GetOffset())
	}
	if h, ok := r.h.(CaughtUpHandler); ok {
		up := CaughtUp{Room: f.GetRoom(), Offset: f.GetOffset(), Incarnation: f.GetIncarnation()}
		if err := h.HandleCaughtUp(ctx, up); err != nil {
			return fmt.Errorf("reprise: handling the end of a replay: %w", err)
		}
	}
	if f.GetRoom() != "" {
		a.roomCaughtUp[f.GetRoom()] = true
		return nil
	}
	a.caughtUp = true
	clear(a.roomCaughtUp) // the rooms that were named, and those that were not
	r.c.state.update(func(s *State) {
		if s.Phase == Replaying && s.Attach == a.welcome.GetAttach() {
			s.Phase, s.Attempt, s.Err = Live, 0, nil
		}
	})
	return nil
}
