package session

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"

	"github.com/reprise-chat/reprise/server/internal/fault"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// Errors of this package, for errors.Is.
var (
	// ErrNotFound: no such session, or another user's.
	ErrNotFound = errors.New("session: not found")
	// ErrFenced: a newer attachment of the session exists.
	ErrFenced = errors.New("session: taken over by a newer attachment")
	// ErrHeld: another instance holds the session and the caller asked not to
	// disturb it.
	ErrHeld = errors.New("session: held by another instance")
	// ErrKeyMalformed: the resume key is not one.
	ErrKeyMalformed = errors.New("session: malformed resume key")
	// ErrKeyNotYours: the resume key was minted for another user.
	ErrKeyNotYours = errors.New("session: another user's resume key")
	// ErrPositionsNeeded: the checkpoint named does not tell all positions.
	ErrPositionsNeeded = errors.New("session: positions needed")
	// ErrTooMany: the user has too many sessions, all attached.
	ErrTooMany = errors.New("session: too many sessions attached")
	// ErrNotAttached: the session has no attachment now.
	ErrNotAttached = errors.New("session: not attached")
)

// Holder is a live stream that speaks for a session.
type Holder interface {
	// Instance is the random name of the client, may be empty.
	Instance() string
	// Probe asks the client for a sign of life; the channel is closed when one
	// comes.
	Probe() <-chan struct{}
	// Supersede ends the stream because a newer attachment has been made. same
	// says whether the same instance made it. It must not block.
	Supersede(attach uint64, same bool)
	// Ended ends the stream because the session was ended. It must not block.
	Ended()
	// Checkpointed says that the attachment's first acks acknowledgements are
	// stored. It must not block.
	Checkpointed(id string, acks uint64)
	// Live reports whether the stream is still there.
	Live() bool
}

// Session is a session in memory. Safe for concurrent use.
type Session struct {
	// Static.
	id, user string
	registry *Registry
	// ephemeral: it is not stored, and ends with its stream.
	ephemeral bool

	// attach is the attach number in force: the fencing token. It is raised
	// after the new one is durable and before the new attachment is welcomed.
	attach atomic.Uint64
	// pins counts users of this object that need it to stay in memory;
	// changed under registry.mu.
	pins int

	// Guarded by mu.
	mu         sync.Mutex
	record     store.Session             // as stored
	holder     Holder                    // nil: detached
	dirty      map[string]store.Position // acknowledged and not stored yet, by room
	checkpoint uint64                    // number of the newest state that is stored
	acks       uint64                    // acknowledgements accepted since the attach
	ended      bool
	stale      bool // record may not be what is stored: read it again
}

// ID returns the session id.
func (s *Session) ID() string { return s.id }

// User returns the session's user.
func (s *Session) User() string { return s.user }

// Fence returns a check that fails once an attachment newer than attach is
// welcomed. attach 0 speaks for whichever is current. It does not block.
func (s *Session) Fence(attach uint64) func() error {
	return func() error {
		if attach != 0 && s.attach.Load() != attach && !fault.Broken(fault.IgnoreFence) {
			return ErrFenced
		}
		return nil
	}
}

// Holder returns the live stream of the session if its attach number is
// attach (0: any): ErrFenced if a newer one took over, ErrNotAttached if there
// is none.
func (s *Session) Holder(attach uint64) (Holder, error) {
	if err := s.Fence(attach)(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder == nil {
		return nil, ErrNotAttached
	}
	return s.holder, nil
}

// Acknowledge notes positions that the attachment has handled; they are stored
// soon. The caller has checked them against what it sent and what the
// attachment acknowledged before.
func (s *Session) Acknowledge(attach uint64, ps []store.Position) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return ErrNotFound
	}
	if err := s.Fence(attach)(); err != nil {
		return err
	}
	s.acks++
	if s.ephemeral { // nobody will ask for them
		return nil
	}
	for _, p := range ps {
		if s.dirty == nil {
			s.dirty = make(map[string]store.Position)
		}
		s.dirty[p.Room] = p
	}
	if len(s.dirty) > 0 {
		s.registry.schedule(s)
	}
	return nil
}

// overlay replaces stored positions by what was acknowledged and is not stored
// yet. Those count as newer than every checkpoint.
func (s *Session) overlay(stored map[string]store.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for room, p := range s.dirty {
		p.Checkpoint = math.MaxUint64
		stored[room] = p
	}
}
