package reprise

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

const (
	// attachTimeout bounds one attempt, from the dial to the Welcome. A
	// server may take two seconds to ask an old holder whether it is alive.
	attachTimeout = 15 * time.Second
	// provenAfter is how long a stream must have lived, at the most, to be more
	// than another failed attempt. It is less if Config.BackoffMin is.
	provenAfter = time.Second
	// awayShare bounds the wait after a stream to a part of how long it lived,
	// so that a client whose link comes and goes is there most of the time. The
	// spread that a server asks for (Welcome.resume_hint) is for the clients
	// that lost it all at once: their streams have lived long.
	awayShare = 10
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
	if err := saved.check(); err != nil {
		return fmt.Errorf("reprise: what was saved cannot be: %w", err)
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
		address := r.c.pool.address()
		r.c.state.update(func(s *State) {
			s.Phase, s.Attempt, s.RetryAt, s.Address = Connecting, r.attempts+1, time.Time{}, address
		})
		a, err := r.attach(ctx, nil)
		if err == nil {
			return a, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if r.isFatal(err, false) {
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
	what := "cannot reach"
	if e := (*Error)(nil); errors.As(err, &e) && e.fromServer() {
		what = "not attached by"
	}
	line := fmt.Sprintf("%s %s, retrying in %v", what, r.c.State().Address, round(r.wait))
	r.c.cfg.Logger.Warn(line, //nolint:sloglint // a sentence, for the person who sees it on standard error
		"attempt", r.attempts, "error", err)
	r.c.state.update(func(s *State) { s.Err = err })
}

// lost says how to go on after a stream ended. One that brought something, and
// was not over as soon as it began, forgives the attempts before.
func (r *run) lost(a *attachment) {
	moveOn := reasonOf(a.err) == "DRAINING" || errors.Is(a.err, ErrSilent)
	a.conn.retire(moveOn)
	if errors.Is(a.err, ErrProtocol) {
		r.book.forgetCheckpoint() // name everything, to agree again
	}
	lived := time.Since(a.started)
	if lived < min(provenAfter, r.c.cfg.BackoffMin) || !a.progress.Load() {
		r.failed(a.err)
		return
	}
	r.attempts = 0
	if r.wait = min(retryAfter(a.err), maxHint); r.wait == 0 {
		hint := min(a.welcome.GetResumeHint().AsDuration(), maxHint)
		r.wait = upTo(min(max(hint, r.c.cfg.BackoffMin), lived/awayShare))
	}
	r.c.cfg.Logger.Info("stream lost", "error", a.err, "wait", r.wait)
	r.c.state.update(func(s *State) { s.Err, s.Attempt = a.err, 0 })
}

// isFatal reports whether an error ends Run: a server's own answer that would
// come again, or a value that no server would take. On a stream that was
// attached, what is wrong with a frame is no reason. The first refusal of a
// token may be one of a token that had just expired.
func (r *run) isFatal(err error, attached bool) bool {
	if errors.Is(err, ErrFenced) || errors.Is(err, ErrSessionHeld) || errors.Is(err, ErrClosed) || errors.Is(err, errJoin) {
		return true
	}
	var e *Error
	if !errors.As(err, &e) {
		return isFinal(err)
	}
	if !isFinal(err) {
		return false
	}
	switch e.Code {
	case codes.PermissionDenied:
		return true
	case codes.InvalidArgument, codes.Unimplemented, codes.ResourceExhausted:
		return !attached
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
			if r.isFatal(a.err, true) {
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
			case r.isFatal(err, false):
				return err
			default: // the old stream is still there
				r.failed(err)
				move.Reset(r.wait)
			}
		}
	}
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
