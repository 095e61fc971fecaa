package reprise

import (
	"fmt"
	"sync"
	"time"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// Phase is what a client is doing.
type Phase int

// Phases of a client, in the order they are usually passed.
const (
	// Idle: Run has not been called.
	Idle Phase = iota
	// Connecting: an attempt is under way.
	Connecting
	// Replaying: attached; what was missed is being handled.
	Replaying
	// Live: caught up.
	Live
	// Waiting: not connected; the next attempt is at State.RetryAt.
	Waiting
	// Closed: Run has ended; State.Err says why, nil if it was asked to.
	Closed
)

// String returns the phase in lower case.
func (p Phase) String() string {
	names := [...]string{"idle", "connecting", "replaying", "live", "waiting", "closed"}
	if p < 0 || int(p) >= len(names) {
		return fmt.Sprintf("phase(%d)", int(p))
	}
	return names[p]
}

// Outcome says how the session was attached.
type Outcome string

// Outcomes of an attach.
const (
	// OutcomeNew: a new session.
	OutcomeNew Outcome = "NEW"
	// OutcomeExact: everything after the client's positions follows.
	OutcomeExact Outcome = "EXACT"
	// OutcomeWithGaps: as OutcomeExact, but at least one gap or rewind
	// follows.
	OutcomeWithGaps Outcome = "WITH_GAPS"
	// OutcomeRebuilt: the server had lost the session and built a new one
	// from the user's rooms and the client's positions.
	OutcomeRebuilt Outcome = "REBUILT"
	// OutcomeForked: another client holds the session; this is a copy of it.
	OutcomeForked Outcome = "FORKED"
)

// State is what a person wants to know about a client's connection.
type State struct {
	Phase Phase
	// Address is the server that was last tried.
	Address string
	// SessionID, Attach (the attach number) and Outcome are of the last
	// Welcome; empty before the first.
	SessionID string
	Attach    uint64
	Outcome   Outcome
	// Rooms is how many rooms the user is a member of.
	Rooms int
	// Replayed of ToReplay events have been handled since the last Welcome;
	// Gaps and Rewinds count what else was handed over since then.
	Replayed, ToReplay uint64
	Gaps, Rewinds      int
	// Attempt counts attempts since the last stream that proved itself; 0
	// while there is one.
	Attempt int
	// RetryAt is when the next attempt is made, in phase Waiting.
	RetryAt time.Time
	// Err is why the last attempt or stream failed, or why Run ended.
	Err error
	// Duplicates counts events that came twice, which happens where two
	// streams overlap, and were dropped.
	Duplicates uint64
}

// String describes the state for a status line.
func (s State) String() string {
	switch s.Phase {
	case Connecting:
		return "connecting to " + s.Address
	case Replaying:
		return fmt.Sprintf("replaying %d of %d", s.Replayed, s.ToReplay)
	case Waiting:
		return fmt.Sprintf("waiting until %s (attempt %d): %v", s.RetryAt.Format(time.TimeOnly), s.Attempt, s.Err)
	case Closed:
		if s.Err != nil {
			return fmt.Sprintf("closed: %v", s.Err)
		}
	}
	return s.Phase.String()
}

// same reports whether there is nothing new in s.
func (s State) same(t State) bool {
	told := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	if told(s.Err) != told(t.Err) {
		return false
	}
	s.Err, t.Err = nil, nil // they may be of a kind that does not compare
	return s == t
}

func outcomeOf(o reprisev1.Outcome) Outcome {
	switch o {
	case reprisev1.Outcome_OUTCOME_NEW:
		return OutcomeNew
	case reprisev1.Outcome_OUTCOME_EXACT:
		return OutcomeExact
	case reprisev1.Outcome_OUTCOME_WITH_GAPS:
		return OutcomeWithGaps
	case reprisev1.Outcome_OUTCOME_REBUILT:
		return OutcomeRebuilt
	case reprisev1.Outcome_OUTCOME_FORKED:
		return OutcomeForked
	default:
		return ""
	}
}

// stateBox holds the state and tells the observer of it.
type stateBox struct {
	observe func(State)

	mu    sync.Mutex
	state State
	// changed has capacity 1: the observer is to look.
	changed chan struct{}
}

func newStateBox(observe func(State)) *stateBox {
	return &stateBox{observe: observe, changed: make(chan struct{}, 1)}
}

func (b *stateBox) get() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

func (b *stateBox) update(change func(*State)) {
	b.mu.Lock()
	change(&b.state)
	b.mu.Unlock()
	signal(b.changed)
}

// progressStep is how many replayed events the observer is told of at a time.
const progressStep = 64

// progress is update for what happens many times a second: the observer is
// told of a part of it.
func (b *stateBox) progress(change func(*State)) {
	b.mu.Lock()
	change(&b.state)
	s := b.state
	b.mu.Unlock()
	if s.Replayed%progressStep == 0 || s.Replayed >= s.ToReplay {
		signal(b.changed)
	}
}

// notify runs the observer on a goroutine of its own. The function returned
// waits until it has been told of the state there is then.
func (b *stateBox) notify() (finish func()) {
	if b.observe == nil {
		return func() {}
	}
	last := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		var told State
		tell := func() {
			if s := b.get(); !s.same(told) {
				told = s
				b.observe(s)
			}
		}
		for {
			select {
			case <-b.changed:
				tell()
			case <-last:
				tell()
				return
			}
		}
	}()
	return func() {
		close(last)
		<-done
	}
}
