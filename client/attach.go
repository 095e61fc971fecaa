package reprise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

const (
	// resumeOverhead is more than a ResumeRequest has beside its positions (100
	// rooms in focus), positionOverhead more than the tag and length of one.
	resumeOverhead   = 32 << 10
	positionOverhead = 8
)

// attach makes one attempt. Everything handled is saved first, so that what
// the resume names is both.
func (r *run) attach(ctx context.Context, prev *attachment) (*attachment, error) {
	if err := r.saver.flush(ctx); err != nil {
		return nil, err
	}
	a, err := r.resume(ctx, prev)
	if reasonOf(err) == "POSITIONS_NEEDED" {
		r.book.forgetCheckpoint()
		a, err = r.resume(ctx, prev)
	}
	if err != nil {
		return nil, err
	}
	// The new resume key must be saved before anything is sent: using the
	// attachment proves the key, and the one before it is then worth nothing.
	if err := r.saver.flush(ctx); err != nil {
		a.cancel(err)
		a.conn.release()
		return nil, err
	}
	r.start(a)
	return a, nil
}

// resume names what is held and takes the Welcome. Positions that are too many
// for one request are named in several, each with an attach of its own: the
// server stores what is named with the attach.
func (r *run) resume(ctx context.Context, prev *attachment) (*attachment, error) {
	_, positions := r.book.resume()
	parts := r.parts(positions)
	if len(parts) > 1 { // a checkpoint would stand for what another part names
		r.book.forgetCheckpoint()
		_, positions = r.book.resume()
		parts = r.parts(positions)
	}
	for _, part := range parts[:len(parts)-1] {
		a, err := r.handshake(ctx, prev, part, part)
		if err != nil {
			return nil, err
		}
		a.cancel(errLost)
		a.conn.release()
		if err := r.saver.flush(ctx); err != nil { // the key, before it is used
			return nil, err
		}
	}
	return r.handshake(ctx, prev, parts[len(parts)-1], positions)
}

// parts divides positions into what fits into one request; at least one part.
func (r *run) parts(positions []Position) (parts [][]Position) {
	most, bytes := defaultResumePositions, defaultResumeBytes
	if l := r.c.knownLimits(); l.GetResumePositions() > 0 && l.GetResumeBytes() > 0 {
		most, bytes = int(l.GetResumePositions()), max(int(l.GetResumeBytes())-resumeOverhead, resumeOverhead)
	}
	start, size := 0, 0
	for i, p := range positions {
		n := proto.Size(p.proto()) + positionOverhead
		if i > start && (i-start >= most || size+n > bytes) {
			parts = append(parts, positions[start:i])
			start, size = i, 0
		}
		size += n
	}
	return append(parts, positions[start:])
}

// start sets an attached stream going.
func (r *run) start(a *attachment) {
	r.current = a
	r.unauthenticated = false
	w := a.welcome
	r.c.state.update(func(s *State) {
		s.Phase = Replaying
		s.SessionID, s.Attach, s.Outcome = w.GetSessionId(), w.GetAttach(), outcomeOf(w.GetOutcome())
		s.Rooms = int(w.GetRooms())
		s.Replayed, s.ToReplay, s.Gaps, s.Rewinds = 0, w.GetEventsToReplay(), 0, 0
	})
	a.log.Info("attached", "outcome", outcomeOf(w.GetOutcome()), "rooms", w.GetRooms(),
		"rooms_changed", w.GetRoomsChanged(), "events_to_replay", w.GetEventsToReplay())
	r.wg.Go(a.read)
	r.wg.Go(a.write)
	r.c.setAttachment(a)
	r.wg.Go(func() { r.join(a) })
}

// errJoin wraps why a room of Config.Rooms cannot be joined.
var errJoin = errors.New("reprise: joining a room of Config.Rooms")

// join makes the user a member of Config.Rooms, of each once in a Run, before
// anybody speaks about it. A stream that ends before all are joined leaves the
// others to the next one, and a room that is not to be had just now keeps none of
// the others.
func (r *run) join(a *attachment) {
	t := tries{c: r.c}
	for rooms := r.c.waiting(); len(rooms) > 0; rooms = r.c.waiting() {
		room, err := r.joinAll(a, &t, rooms)
		if a.ctx.Err() != nil || isReplaced(err) {
			return // the next attachment's turn
		}
		if err == nil {
			continue
		}
		if err := t.again(a.ctx, err); err != nil {
			if isFinal(err) {
				a.cancel(fmt.Errorf("%w: %s: %w", errJoin, room, err))
			}
			return
		}
	}
}

// joinAll joins one room after the other, until something fails that is not of
// that room alone. It returns the last failure, and of which room it was.
func (r *run) joinAll(a *attachment, t *tries, rooms []string) (failed string, last error) {
	c := r.c
	for _, room := range rooms {
		err := c.call(a.ctx, func(ctx context.Context, chat reprisev1.ChatServiceClient) error {
			_, err := join(ctx, chat, a.via, room, c.cfg.History)
			return err
		})
		if err == nil {
			t.failures = 0
			c.joined(room)
			continue
		}
		failed, last = room, err
		c.postponed(room)
		if reasonOf(err) != "ROOM_UNAVAILABLE" {
			break
		}
		c.cfg.Logger.Warn("a room of Config.Rooms cannot be joined just now", "room", room, "error", err)
	}
	return failed, last
}

// handshake opens a stream and takes the Welcome.
//
// Part is what this request names, named is what the server goes by then.
func (r *run) handshake(ctx context.Context, prev *attachment, part, named []Position) (*attachment, error) {
	conn, err := r.c.pool.get()
	if err != nil {
		return nil, err
	}
	r.c.state.update(func(s *State) { s.Address = conn.address })
	streamCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	timer := time.AfterFunc(attachTimeout, func() { cancel(errAttachTimeout) })
	a := &attachment{conn: conn, ctx: streamCtx, cancel: cancel, prev: prev, inbox: r.inbox, book: r.book}
	err = r.greet(a, part, named)
	timer.Stop()
	unhook()
	if cause := context.Cause(streamCtx); cause != nil {
		err = cause // it took too long, or Run is to end
	}
	if err != nil {
		cancel(err)
		if isNetwork(err) {
			conn.retire(true)
		}
		conn.release()
		return nil, err
	}
	return a, nil
}

// greet sends the first frame on a new stream and takes the answer.
func (r *run) greet(a *attachment, part, named []Position) error {
	ctx, err := r.c.authorize(a.ctx)
	if err != nil {
		return err
	}
	a.rpc, err = a.conn.chat.Connect(ctx)
	if err != nil {
		return errorOf(err)
	}
	if err := a.rpc.Send(r.firstFrame(part)); err != nil && !errors.Is(err, io.EOF) {
		return errorOf(err)
	}
	f, err := a.rpc.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: the stream ended without a Welcome", ErrProtocol)
	case err != nil:
		return errorOf(err)
	case f.GetWelcome() == nil:
		return fmt.Errorf("%w: the first frame is not a Welcome", ErrProtocol)
	}
	a.welcomed(f.GetWelcome(), r.c.cfg.Logger)
	r.c.welcomed(a)
	r.book.attached(a, a.welcome, named)
	return nil
}

// firstFrame opens a session, or resumes the one there is. Positions without a
// session are resumed too: the server builds one from them.
func (r *run) firstFrame(positions []Position) *reprisev1.ClientFrame {
	cfg := &r.c.cfg
	window := uint32(max(cfg.Window, 0))
	session, _ := r.book.resume()
	if r.book.isNew() {
		return &reprisev1.ClientFrame{RequestId: "open", Frame: &reprisev1.ClientFrame_Open{Open: &reprisev1.OpenRequest{
			InstanceId: r.c.instance,
			History:    cfg.History,
			Focus:      cfg.Focus,
			Window:     window,
		}}}
	}
	return &reprisev1.ClientFrame{RequestId: "resume", Frame: &reprisev1.ClientFrame_Resume{Resume: &reprisev1.ResumeRequest{
		SessionId:   session.ID,
		ResumeKey:   session.ResumeKey,
		InstanceId:  r.c.instance,
		Takeover:    cfg.Takeover.proto(),
		Positions:   protoPositions(positions),
		Checkpoint:  session.Checkpoint,
		Focus:       cfg.Focus,
		Window:      window,
		ReplayLimit: cfg.ReplayLimit,
	}}}
}
