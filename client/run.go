package reprise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

const (
	// attachTimeout bounds one attempt, from the dial to the Welcome. A
	// server may take two seconds to ask an old holder whether it is alive.
	attachTimeout = 15 * time.Second
	// provenAfter is how long a stream must have lived to be more than
	// another failed attempt.
	provenAfter = 5 * time.Second
	// goodbyeTimeout bounds saving, acknowledging and Bye when Run ends.
	goodbyeTimeout = 3 * time.Second
)

var errAttachTimeout = errors.New("reprise: no Welcome in time")

// run is one call of Run. It has four kinds of goroutines: this one
// supervises; each attachment reads and writes; one delivers, running the
// handler; one saves.
type run struct {
	// Static.
	c     *Client
	h     Handler
	inbox *inbox
	book  *ledger
	saver *saver
	wg    sync.WaitGroup // goroutines of attachments

	// Supervisor: the goroutine of Run.
	attempts        int
	wait            time.Duration // before the next attempt
	unauthenticated bool          // the last token was refused
	current         *attachment
}

func (c *Client) run(caller context.Context, h Handler) error {
	saved, err := c.cfg.Positions.Load(caller)
	if err != nil {
		return fmt.Errorf("reprise: loading positions: %w", err)
	}
	if _, ok := h.(StartHandler); saved.Strict && !ok {
		return fmt.Errorf("%w: with these positions (HandlerStore) the Handler must implement StartHandler, or a room could begin without a record of where", ErrInvalid)
	}
	book := newLedger(saved)
	c.setBook(book)
	window := c.cfg.Window
	if window < 0 {
		window = DefaultWindow
	}
	r := &run{c: c, h: h, inbox: newInbox(window), book: book, saver: newSaver(book, c.cfg.Positions, window)}

	ctx, cancel := context.WithCancelCause(caller)
	saving, stopSaving := context.WithCancel(context.WithoutCancel(caller))
	defer stopSaving()
	var delivering, saver sync.WaitGroup
	delivering.Go(func() { cancel(r.deliver(ctx)) })
	saver.Go(func() { cancel(r.saver.run(saving)) })

	err = r.supervise(ctx)
	cancel(err)
	delivering.Wait()
	failed := r.finish(context.WithoutCancel(caller))
	stopSaving()
	saver.Wait()
	r.wg.Wait()
	cause := context.Cause(ctx)
	if caller.Err() != nil && errors.Is(cause, context.Cause(caller)) {
		return failed // the caller wanted an end
	}
	return cause // the handler's, the store's or the supervisor's error
}

// finish saves and acknowledges what was handled and says goodbye.
func (r *run) finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, goodbyeTimeout)
	defer cancel()
	r.inbox.drop()
	err := r.saver.flush(ctx)
	r.goodbye(ctx)
	return err
}

// supervise keeps one attachment alive until ctx ends or something happens
// that trying again would not cure.
func (r *run) supervise(ctx context.Context) error {
	for {
		a, err := r.connect(ctx)
		if err != nil {
			return err
		}
		if err := r.attend(ctx, a); err != nil {
			return err
		}
	}
}

// connect attempts to attach until it succeeds.
func (r *run) connect(ctx context.Context) (*attachment, error) {
	for {
		if err := r.pause(ctx); err != nil {
			return nil, err
		}
		r.c.state.update(func(s *State) {
			s.Phase, s.Attempt, s.RetryAt = Connecting, r.attempts+1, time.Time{}
		})
		a, err := r.attach(ctx, nil)
		if err == nil {
			return a, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if r.isFatal(err) {
			return nil, err
		}
		r.failed(err)
	}
}

// pause waits before the next attempt.
func (r *run) pause(ctx context.Context) error {
	if r.wait > 0 {
		r.c.state.update(func(s *State) {
			s.Phase, s.Attempt, s.RetryAt = Waiting, r.attempts, time.Now().Add(r.wait)
		})
	}
	wait := r.wait
	r.wait = 0
	return sleep(ctx, wait)
}

// failed counts an attempt that failed and says how long to wait: as long as
// the server asked, else a random time that grows.
func (r *run) failed(err error) {
	r.attempts++
	r.wait = min(retryAfter(err), maxHint)
	if r.wait == 0 {
		r.wait = jitter(r.attempts, r.c.cfg.BackoffMin, r.c.cfg.BackoffMax)
	}
	r.c.cfg.Logger.Info("attempt failed", "attempt", r.attempts, "error", err, "wait", r.wait)
	r.c.state.update(func(s *State) { s.Err = err })
}

// lost says how to go on after a stream ended. Only one that proved itself
// forgives the attempts before.
func (r *run) lost(a *attachment) {
	moveOn := reasonOf(a.err) == "DRAINING" || errors.Is(a.err, ErrSilent)
	a.conn.retire(moveOn)
	if errors.Is(a.err, ErrProtocol) {
		r.book.forgetCheckpoint() // name everything, to agree again
	}
	hint := min(a.welcome.GetResumeHint().AsDuration(), maxHint)
	if time.Since(a.started) < provenAfter {
		r.failed(a.err)
		return
	}
	r.attempts = 0
	switch after := min(retryAfter(a.err), maxHint); {
	case after > 0:
		r.wait = after
	case hint > 0:
		r.wait = upTo(hint)
	default:
		r.wait = jitter(1, r.c.cfg.BackoffMin, r.c.cfg.BackoffMax)
	}
	r.c.cfg.Logger.Info("stream lost", "error", a.err, "wait", r.wait)
	r.c.state.update(func(s *State) { s.Err, s.Attempt = a.err, 0 })
}

// isFatal reports whether an error would come again. The first refusal of a
// token may be one of a token that had just expired.
func (r *run) isFatal(err error) bool {
	var e *Error
	switch {
	case errors.Is(err, ErrFenced), errors.Is(err, ErrSessionHeld), errors.Is(err, ErrClosed):
		return true
	case !errors.As(err, &e):
		return false
	}
	switch e.Code {
	case codes.PermissionDenied, codes.InvalidArgument, codes.Unimplemented:
		return true
	case codes.Unauthenticated:
		again := r.unauthenticated
		r.unauthenticated = true
		return again
	}
	return false
}

// attend looks after a and those that follow it by a drain, until none is
// left. It returns nil to connect again.
func (r *run) attend(ctx context.Context, a *attachment) error {
	ticker := time.NewTicker(max(a.heartbeat()/4, time.Second))
	defer ticker.Stop()
	move := time.NewTimer(0)
	move.Stop()
	defer move.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.done:
			if r.isFatal(a.err) {
				return a.err
			}
			r.lost(a)
			return nil
		case now := <-ticker.C:
			if a.silent(now) {
				a.cancel(ErrSilent)
			}
		case d := <-a.drain:
			r.c.cfg.Logger.Info("server drains", "move_after", d.GetMoveAfter().AsDuration())
			a.conn.retire(true)
			move.Reset(max(d.GetMoveAfter().AsDuration(), 0))
		case <-move.C:
			b, err := r.attach(ctx, a)
			switch {
			case err == nil:
				a = b
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case r.isFatal(err):
				return err
			default: // the old stream is still there
				r.failed(err)
				move.Reset(r.wait)
			}
		}
	}
}

// attach makes one attempt. Everything handled is saved first, so that what
// the resume names is both.
func (r *run) attach(ctx context.Context, prev *attachment) (*attachment, error) {
	if err := r.saver.flush(ctx); err != nil {
		return nil, err
	}
	a, err := r.handshake(ctx, prev)
	if reasonOf(err) == "POSITIONS_NEEDED" {
		r.book.forgetCheckpoint()
		a, err = r.handshake(ctx, prev)
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
}

// handshake opens a stream and takes the Welcome.
func (r *run) handshake(ctx context.Context, prev *attachment) (*attachment, error) {
	conn, err := r.c.pool.get()
	if err != nil {
		return nil, err
	}
	r.c.state.update(func(s *State) { s.Address = conn.address })
	streamCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	timer := time.AfterFunc(attachTimeout, func() { cancel(errAttachTimeout) })
	a := &attachment{conn: conn, ctx: streamCtx, cancel: cancel, prev: prev, inbox: r.inbox, book: r.book}
	err = r.greet(a)
	timer.Stop()
	unhook()
	if cause := context.Cause(streamCtx); cause != nil {
		err = cause // it took too long, or Run is to end
	}
	if err != nil {
		cancel(err)
		if isTransport(err) {
			conn.retire(true)
		}
		conn.release()
		return nil, err
	}
	return a, nil
}

// isTransport reports whether an attempt failed for want of a server, so that
// another one should be tried.
func isTransport(err error) bool {
	var e *Error
	return errors.Is(err, errAttachTimeout) || errors.As(err, &e) && e.Code == codes.Unavailable
}

// greet sends the first frame on a new stream and takes the answer.
func (r *run) greet(a *attachment) error {
	ctx, err := r.c.authorize(a.ctx)
	if err != nil {
		return err
	}
	a.rpc, err = a.conn.chat.Connect(ctx)
	if err != nil {
		return errorOf(err)
	}
	first, named := r.firstFrame()
	if err := a.rpc.Send(first); err != nil && !errors.Is(err, io.EOF) {
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
	r.book.attached(a, a.welcome, named)
	return nil
}

// firstFrame opens a session, or resumes the one there is. Positions without a
// session are resumed too: the server builds one from them.
func (r *run) firstFrame() (*reprisev1.ClientFrame, []Position) {
	cfg := &r.c.cfg
	window := uint32(max(cfg.Window, 0))
	session, positions := r.book.resume()
	if r.book.isNew() {
		return &reprisev1.ClientFrame{RequestId: "open", Frame: &reprisev1.ClientFrame_Open{Open: &reprisev1.OpenRequest{
			InstanceId: r.c.instance,
			History:    cfg.History,
			Focus:      cfg.Focus,
			Window:     window,
		}}}, nil
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
	}}}, positions
}

// goodbye ends the current attachment, with what was handled acknowledged.
func (r *run) goodbye(ctx context.Context) {
	a := r.current
	r.c.setAttachment(nil)
	if a == nil {
		return
	}
	select {
	case a.bye <- &reprisev1.Bye{EndSession: r.c.cfg.Ephemeral}:
	case <-a.done:
	case <-ctx.Done():
	}
	select {
	case <-a.done:
	case <-ctx.Done():
	}
	a.cancel(errLost)
	a.conn.retire(false)
}
