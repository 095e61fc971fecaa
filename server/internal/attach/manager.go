package attach

import (
	"cmp"
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/session"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// Observer is told what attachments do. Its methods must not block.
type Observer interface {
	// Attached: a session was attached.
	Attached(reprisev1.Outcome)
	// Delivered: events were handed to a stream, live or replayed.
	Delivered(replayed bool, events uint64, bytes int)
	// Gap: a range was not sent.
	Gap(reprisev1.GapReason, uint64)
	// Rewind: a log was not the one a client knew.
	Rewind()
	// Unavailable: a client was told that a room cannot be read just now.
	Unavailable()
}

// Options configure a Manager.
type Options struct {
	// Heartbeat is how often an attachment gets one. Default 20 s.
	Heartbeat time.Duration
	// ReplayLimit bounds the events of one room replayed at an attach, unless
	// the client asks for less. 0: no limit.
	ReplayLimit uint64
	// AttachRate is how many attaches a second the node can bear: it spreads
	// the clients' first attempts after a loss. Default 1000.
	AttachRate int
	// Limits is what the Welcome says of the server's bounds; may be nil.
	Limits *reprisev1.Limits
	// Observer may be nil.
	Observer Observer
	// Logger is told at debug level who attaches and how it ends. Default
	// slog.Default().
	Logger *slog.Logger
}

// Manager makes attachments and knows those that are live. Safe for
// concurrent use.
type Manager struct {
	store    store.Store
	rooms    *room.Hub
	sessions *session.Registry
	pool     *Pool
	opts     Options

	mu       sync.RWMutex
	live     map[*Attachment]struct{}
	byUser   map[string]map[*Attachment]struct{}
	draining bool

	cuts sync.WaitGroup // ends of streams whose clients take nothing
}

// NewManager returns a Manager. The pool outlives it.
func NewManager(s store.Store, rooms *room.Hub, sessions *session.Registry, pool *Pool, o Options) *Manager {
	if o.Heartbeat == 0 {
		o.Heartbeat = 20 * time.Second
	}
	if o.AttachRate == 0 {
		o.AttachRate = 1000
	}
	if o.Observer == nil {
		o.Observer = noObserver{}
	}
	o.Logger = cmp.Or(o.Logger, slog.Default())
	return &Manager{
		store: s, rooms: rooms, sessions: sessions, pool: pool, opts: o,
		live:   make(map[*Attachment]struct{}),
		byUser: make(map[string]map[*Attachment]struct{}),
	}
}

// Accepts returns nil, or ErrDraining if no attachment is made any more. It is
// asked before anything is spent on one.
func (m *Manager) Accepts() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.draining {
		return ErrDraining
	}
	return nil
}

// new returns an attachment that is told of the user's memberships from now
// on, so that none is missed between looking at them and going live. It sends
// nothing before begin.
func (m *Manager) new(stream Stream, user, instance string, window uint32) (*Attachment, error) {
	a := &Attachment{
		m: m, stream: stream, user: user, instance: instance, window: int(min(uint64(window), math.MaxInt)), follow: true,
		slots: make(chan struct{}, maxInFlight),
		done:  make(chan struct{}),
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.draining {
		return nil, ErrDraining
	}
	m.live[a] = struct{}{}
	if m.byUser[user] == nil {
		m.byUser[user] = make(map[*Attachment]struct{})
	}
	m.byUser[user][a] = struct{}{}
	return a, nil
}

func (m *Manager) unregister(a *Attachment) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.live, a)
	if of := m.byUser[a.user]; of != nil {
		delete(of, a)
		if len(of) == 0 {
			delete(m.byUser, a.user)
		}
	}
}

// MemberChanged tells the user's attachments of a durable change of a
// membership. It does not block.
func (m *Manager) MemberChanged(room string, c store.MemberChange) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for a := range m.byUser[c.User] {
		a.memberChanged(room, c)
	}
}

// Find returns the user's live attachment of a session if its attach number is
// attach (0: any), with the errors of session.Session.Holder.
func (m *Manager) Find(ctx context.Context, user, id string, attach uint64) (*Attachment, error) {
	s, release, err := m.sessions.Acquire(ctx, user, id)
	if err != nil {
		return nil, err
	}
	defer release()
	h, err := s.Holder(attach)
	if err != nil {
		return nil, err
	}
	return h.(*Attachment), nil
}

// begin sends what opens the stream and everything after it.
func (a *Attachment) begin() {
	a.mu.Lock()
	a.started = true
	l, push := a.scheduleLocked(prompt)
	a.mu.Unlock()
	a.push(l, push)
	a.beat(a.m.opts.Heartbeat)
}

// Drain tells every client to move: each at its own moment, spread over
// spread. No new attachment is made from now on. Streams that are still there
// after closesIn, or when ctx ends, end with ErrDraining.
func (m *Manager) Drain(ctx context.Context, spread, closesIn time.Duration) {
	m.mu.Lock()
	m.draining = true
	left := make([]*Attachment, 0, len(m.live))
	for a := range m.live {
		left = append(left, a)
	}
	m.mu.Unlock()
	for _, a := range left {
		a.drainNotice(rand.N(spread+1), closesIn)
	}
	timeout := time.NewTimer(closesIn)
	defer timeout.Stop()
wait:
	for _, a := range left {
		select {
		case <-a.done:
		case <-a.stream.Context().Done():
		case <-timeout.C:
			break wait
		case <-ctx.Done():
			break wait
		}
	}
	for _, a := range left {
		a.end(nil, ErrDraining)
	}
	m.cut(ctx, left)
}

// cut ends streams whose clients take nothing, soon after they were told.
func (m *Manager) cut(ctx context.Context, left []*Attachment) {
	const patience = time.Second
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for _, a := range left {
		select {
		case <-a.done:
			continue
		case <-a.stream.Context().Done():
			continue
		case <-timeout.C:
			timeout.Reset(0)
		case <-ctx.Done():
		}
		m.cuts.Go(func() { a.finish(ErrDraining) })
	}
}

// Wait waits for what Drain has begun; all streams have ended.
func (m *Manager) Wait() { m.cuts.Wait() }

// Live returns how many streams are live.
func (m *Manager) Live() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.live)
}

type noObserver struct{}

func (noObserver) Attached(reprisev1.Outcome)      {}
func (noObserver) Delivered(bool, uint64, int)     {}
func (noObserver) Gap(reprisev1.GapReason, uint64) {}
func (noObserver) Rewind()                         {}
func (noObserver) Unavailable()                    {}
