package reprise

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc/metadata"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// Client is one running program's connection to Reprise. Its methods are safe
// for concurrent use. Close it when it is no longer needed.
type Client struct {
	// Static.
	cfg      Config
	instance string // names this running client to the server
	pool     *pool
	state    *stateBox
	inFlight chan struct{} // one slot for each send under way
	closed   chan struct{} // closed by Close

	mu         sync.Mutex
	running    bool
	hasRun     bool               // Run was called
	stop       context.CancelFunc // of Run
	stopped    chan struct{}      // closed when Run has ended
	isClosed   bool
	fenced     bool
	book       *ledger
	attachment *attachment
	attaches   uint64            // so far
	unjoined   []string          // of Config.Rooms, those that this Run, or the first, has yet to join
	limits     *reprisev1.Limits // of the last Welcome; nil if nothing is known
	changed    chan struct{}     // closed, and replaced, when something above changes
}

// New returns a Client, without connecting.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Client{
		cfg:      cfg,
		instance: newID("go_"),
		unjoined: slices.Clone(cfg.Rooms),
		pool:     newPool(cfg),
		state:    newStateBox(cfg.OnState),
		inFlight: make(chan struct{}, maxInFlight),
		closed:   make(chan struct{}),
		changed:  make(chan struct{}),
	}, nil
}

// Run attaches, resumes after every loss, and hands h what happens, until ctx
// ends or the Client is closed (then it says goodbye, with what was handled
// saved and acknowledged, and returns nil), h returns an error (returned,
// wrapped), or something happens that trying again would not cure: ErrFenced,
// ErrSessionHeld, ErrUnauthenticated (with a token fetched anew),
// ErrPermissionDenied, ErrInvalid, ErrTooManySessions, an unimplemented method,
// a room of Config.Rooms that cannot be joined, or an error of the position
// store. Only a Reprise server's own answer ends it: whatever else comes back (a
// proxy's error, a captive portal's page, a certificate that is not trusted) is
// in State.Err and in the log, and is tried again.
//
// One Run at a time; another may follow, and goes on where the one before
// ended.
func (c *Client) Run(ctx context.Context, h Handler) error {
	if h == nil {
		return fmt.Errorf("%w: Run needs a Handler", ErrInvalid)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stopped := make(chan struct{})
	if err := c.begin(cancel, stopped); err != nil {
		return err
	}
	defer close(stopped)
	notified := c.state.notify()
	err := c.run(ctx, h)
	c.end(err)
	c.state.update(func(s *State) { s.Phase, s.Err = Closed, err })
	notified()
	return err
}

// begin claims the Client for one Run.
func (c *Client) begin(stop context.CancelFunc, stopped chan struct{}) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.isClosed:
		return ErrClosed
	case c.running:
		return ErrRunning
	}
	c.running, c.hasRun, c.fenced, c.stop, c.stopped = true, true, false, stop, stopped
	c.unjoined = slices.Clone(c.cfg.Rooms)
	c.wake()
	return nil
}

func (c *Client) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running, c.attachment, c.fenced = false, nil, errors.Is(err, ErrFenced)
	c.wake()
}

// Close ends Run, waits for it, and closes the connections. Sends that wait
// return ErrClosed. It must not be called by a handler.
func (c *Client) Close() error {
	c.mu.Lock()
	if !c.isClosed {
		c.isClosed = true
		close(c.closed)
	}
	stop, stopped := c.stop, c.stopped
	c.mu.Unlock()
	if stop != nil {
		stop()
		<-stopped
	}
	c.pool.close()
	return nil
}

// State returns what the client is doing now.
func (c *Client) State() State { return c.state.get() }

func (c *Client) setBook(book *ledger) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.book = book
}

// setAttachment makes a the one to speak through, unless a newer one is.
func (c *Client) setAttachment(a *attachment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a != nil && c.attachment != nil && c.attachment.number > a.number {
		return
	}
	c.attachment = a
	c.wake()
}

// welcomed notes what a server says of itself, and numbers its attachment.
func (c *Client) welcomed(a *attachment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attaches++
	a.number = c.attaches
	c.limits = a.welcome.GetLimits()
}

func (c *Client) knownLimits() *reprisev1.Limits {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.limits
}

func (c *Client) isRunning() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running
}

// wake tells everybody in attached to look again. Called with mu held.
func (c *Client) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// waiting returns the rooms that Run has yet to join.
func (c *Client) waiting() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.unjoined)
}

// joined notes that Run has joined a room.
func (c *Client) joined(room string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unjoined = slices.DeleteFunc(c.unjoined, func(r string) bool { return r == room })
	c.wake()
}

// postponed has a room be the last of those that Run has yet to join.
func (c *Client) postponed(room string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.unjoined, room); i >= 0 {
		c.unjoined = append(slices.Delete(c.unjoined, i, i+1), room)
	}
}

// begun waits for the first Run, should it be the one to join a room.
func (c *Client) begun(ctx context.Context, room string) error {
	return c.await(ctx, func() bool { return c.hasRun || !slices.Contains(c.unjoined, room) })
}

// attached returns the attachment to speak through about a room, waiting for one
// other than not while Run is running, and for Run to join the room if it is to.
// Without Run it returns nil: then a call speaks for itself.
func (c *Client) attached(ctx context.Context, not *attachment, room string) (a *attachment, err error) {
	err = c.await(ctx, func() bool {
		a = nil
		if c.running {
			a = c.attachment
		}
		return !c.running || a != nil && a != not && !slices.Contains(c.unjoined, room)
	})
	if err != nil {
		return nil, err
	}
	return a, nil
}

// await waits until ready, which is called with mu held.
func (c *Client) await(ctx context.Context, ready func() bool) error {
	for {
		c.mu.Lock()
		ok, changed := ready(), c.changed
		closed, fenced := c.isClosed, c.fenced
		c.mu.Unlock()
		switch {
		case closed:
			return ErrClosed
		case fenced:
			return ErrFenced
		case ok:
			return nil
		}
		select {
		case <-changed:
		case <-c.closed:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// authorize returns a context that carries a fresh token.
func (c *Client) authorize(ctx context.Context) (context.Context, error) {
	if c.cfg.Token == nil {
		return ctx, nil
	}
	token, err := c.cfg.Token(ctx)
	if err != nil {
		return nil, fmt.Errorf("reprise: getting a token: %w", err)
	}
	if err := checkToken(token); err != nil {
		return nil, err
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), nil
}
