package reprise

import (
	"context"
	"errors"
	"fmt"
	"io"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// TailOptions select what [Client.Tail] reads.
type TailOptions struct {
	// After is where to start, 0 for the oldest; Incarnation is what it
	// belongs to, if known.
	After       uint64
	Incarnation string
	// Last starts so that the newest Last events come first, at most 10000;
	// After is then ignored.
	Last uint32
	// Limit ends the reading after so many events; 0 does not.
	Limit uint64
	// Follow goes on with live events when caught up.
	Follow bool
}

func (o TailOptions) check(room string) error {
	if err := checkName("room", room); err != nil {
		return err
	}
	if err := checkText("incarnation", o.Incarnation, 0, maxID); err != nil {
		return err
	}
	return checkAtMost("last", uint64(o.Last), maxTailLast)
}

// Tail reads one room without a session and without positions. It returns nil
// when it is caught up (unless Follow), after Limit events, or when ctx ends.
// If no server can be reached at the start it returns that error; a stream
// that is lost later is taken up again after the last event that was handled.
// h may implement [CaughtUpHandler].
func (c *Client) Tail(ctx context.Context, room string, opts TailOptions, h Handler) error {
	if err := opts.check(room); err != nil {
		return err
	}
	t := &tail{
		c: c, h: h, opts: opts, room: room,
		at: Position{Room: room, Incarnation: opts.Incarnation, Offset: opts.After},
	}
	for failures, tried := 0, 0; ; {
		had := t.frames
		done, err := t.read(ctx)
		progress := t.frames > had
		switch {
		case t.failed != nil:
			return t.failed
		case done, ctx.Err() != nil:
			return nil
		case t.frames == 0:
			if tried++; isNetwork(err) && tried < len(c.cfg.Addresses) {
				continue
			}
			return err
		case errors.Is(err, ErrUnauthenticated) && progress: // the token has expired
		case isFinal(err):
			return err
		}
		if failures++; progress {
			failures = 1
		}
		wait := min(retryAfter(err), maxHint)
		if wait == 0 {
			wait = jitter(failures, c.cfg.BackoffMin, c.cfg.BackoffMax)
		}
		if c.sleep(ctx, wait) != nil {
			return nil
		}
	}
}

// tail is one call of Tail: a place in one room that outlives its streams.
type tail struct {
	c    *Client
	h    Handler
	opts TailOptions
	room string

	at      Position // what was handled
	started bool     // at is where the server put it, not the caller
	events  uint64   // handled so far
	frames  int      // received so far
	live    bool     // on this stream
	failed  error    // what the handler returned
}

// request continues after what was handled. Until something was, it is the
// caller's.
func (t *tail) request() *reprisev1.TailRequest {
	r := &reprisev1.TailRequest{
		Room: t.room, After: t.at.Offset, Incarnation: t.at.Incarnation, Follow: t.opts.Follow,
	}
	if !t.started {
		r.Last = t.opts.Last
	}
	if t.opts.Limit > 0 {
		r.Limit = t.opts.Limit - t.events
	}
	return r
}

// read reads one stream to its end. done means that there is nothing more to
// read.
func (t *tail) read(ctx context.Context) (done bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.live = false
	err = t.c.call(ctx, func(ctx context.Context, chat reprisev1.ChatServiceClient) error {
		stream, err := chat.Tail(ctx, t.request())
		for err == nil {
			var f *reprisev1.ServerFrame
			if f, err = stream.Recv(); err == nil {
				t.frames++
				err = t.take(ctx, f)
			}
		}
		if errors.Is(err, io.EOF) {
			done, err = true, nil
		}
		return err
	})
	return done || t.opts.Limit > 0 && t.events >= t.opts.Limit, err
}

// take handles one frame on the caller's goroutine: while it does, nothing is
// read.
func (t *tail) take(ctx context.Context, frame *reprisev1.ServerFrame) (err error) {
	switch f := frame.GetFrame().(type) {
	case *reprisev1.ServerFrame_Events:
		return t.takeEvents(ctx, f.Events)
	case *reprisev1.ServerFrame_Gap:
		return t.handled(t.h.HandleGap(ctx, gapOf(f.Gap)), f.Gap.GetIncarnation(), f.Gap.GetLast())
	case *reprisev1.ServerFrame_Rewind:
		rewind := Rewind{Room: t.room, To: f.Rewind.GetTo(), Incarnation: f.Rewind.GetIncarnation()}
		return t.handled(t.h.HandleRewind(ctx, rewind), rewind.Incarnation, rewind.To)
	case *reprisev1.ServerFrame_CaughtUp:
		t.live = true
		if h, ok := t.h.(CaughtUpHandler); ok {
			up := CaughtUp{Room: t.room, Offset: f.CaughtUp.GetOffset(), Incarnation: f.CaughtUp.GetIncarnation()}
			return t.handled(h.HandleCaughtUp(ctx, up), t.at.Incarnation, t.at.Offset)
		}
	}
	return nil
}

func (t *tail) takeEvents(ctx context.Context, f *reprisev1.Events) error {
	for _, p := range f.GetEvents() {
		if (t.started || t.opts.Last == 0) && p.GetAfter() != t.at.Offset {
			return fmt.Errorf("%w: event %d of %s where %d is held", ErrProtocol, p.GetOffset(), t.room, t.at.Offset)
		}
		e := eventOf(t.room, f.GetIncarnation(), p)
		e.Replayed = !t.live
		if err := t.handled(t.h.HandleEvent(ctx, e), e.Incarnation, e.Offset); err != nil {
			return err
		}
		t.events++
	}
	return nil
}

// handled moves on, unless the handler returned an error.
func (t *tail) handled(err error, incarnation string, offset uint64) error {
	if err != nil {
		t.failed = err
		return err
	}
	t.at.Incarnation, t.at.Offset, t.started = incarnation, offset, true
	return nil
}
