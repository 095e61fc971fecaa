package limit

import (
	"container/list"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/reprise-chat/reprise/server/internal/fault"
)

// Caller is who wants to pass a Gate.
type Caller struct {
	User, Address string
	// Client tells one client of the user from another, and is the same at its
	// next attempt.
	Client string
}

// GateOptions configure a Gate. A zero field has the default given.
type GateOptions struct {
	// What is admitted, as a person reads it.
	What string
	// PerSecond is the rate; 0: no limit. Burst passes at once.
	PerSecond float64
	Burst     int
	// Wait is how long a caller is kept waiting at most. Default 2 s.
	Wait time.Duration
	// Horizon is how far ahead slots are given out. Default 1 minute.
	Horizon time.Duration
	// Grace is how late one may come in one's slot. Default 10 s.
	Grace time.Duration
	// PerUser bounds how many clients of one user wait or have a slot.
	// Default 64.
	PerUser int
}

// maxSlots bounds the slots that are given out at once.
const maxSlots = 1 << 15

// Gate admits at a rate. A caller whose turn comes soon waits for it. Another
// one is sent away with a slot that is kept for it: who comes back in its slot
// gets in, so that N callers who obey make at most two attempts each. Safe for
// concurrent use.
//
// It is fair. A fifth of the rate is for callers of whose user and of whose
// address few came lately, so a crowd, or one user who asks without end, does
// not keep them out. The rest is first come, first served, and one user has
// only so many places in the queue.
type Gate struct {
	o     GateOptions
	light struct{ users, addresses *ByKey }

	mu    sync.Mutex
	lanes [2]lane // many, few
	// pace bounds how fast those come in who have slots: they may be late
	// together.
	pace      lane
	slots     map[string]*slot
	order     [2]list.List // of *slot, by time, for each lane
	users     map[string]int
	addresses map[string]int
}

const (
	many = iota
	few
)

// slot is a place that is kept for a caller.
type slot struct {
	key string
	Caller
	at    time.Time
	lane  int
	place *list.Element
}

// NewGate returns a Gate.
func NewGate(o GateOptions) *Gate {
	setDefault(&o.Wait, 2*time.Second)
	setDefault(&o.Horizon, time.Minute)
	setDefault(&o.Grace, 10*time.Second)
	setDefault(&o.PerUser, 64)
	o.Burst = max(1, o.Burst)
	g := &Gate{o: o, slots: make(map[string]*slot), users: make(map[string]int), addresses: make(map[string]int)}
	if o.PerSecond <= 0 {
		return g
	}
	share := float64(o.Burst) / 5
	g.lanes[many] = newLane(o.PerSecond*4/5, float64(o.Burst)-share)
	g.lanes[few] = newLane(o.PerSecond/5, share)
	g.pace = newLane(o.PerSecond, float64(o.Burst))
	g.light.users = NewByKey("", 1, 4)
	g.light.addresses = NewByKey("", max(1, o.PerSecond/20), max(8, o.Burst/20))
	return g
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Enter waits for c's turn, or returns an *Error with its slot, or the context's
// error.
func (g *Gate) Enter(ctx context.Context, c Caller) error {
	if g.o.PerSecond <= 0 {
		return nil
	}
	light := g.light.users.Allow(c.User) == nil && g.light.addresses.Allow(c.Address) == nil
	s, err := g.admit(c, light, time.Now())
	if s == nil {
		return err
	}
	t := time.NewTimer(time.Until(s.at))
	defer t.Stop()
	select {
	case <-t.C:
		g.leave(s, false)
		return nil
	case <-ctx.Done():
		g.leave(s, true)
		return ctx.Err()
	}
}

// admit decides about a caller. A slot that is returned is to be waited for.
func (g *Gate) admit(c Caller, light bool, now time.Time) (*slot, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expireLocked(now)
	key := c.User + "\x00" + c.Client
	if s := g.slots[key]; s != nil {
		if early := s.at.Sub(now); early > g.o.Wait {
			return nil, &Error{g.o.What, early}
		}
		g.removeLocked(s)
		at := later(s.at, g.pace.take(g.pace.peek(now)))
		return g.waitLocked(&slot{Caller: c, at: at, lane: -1}, now), nil
	}
	s := &slot{key: key, Caller: c, lane: many, at: g.lanes[many].peek(now)}
	if at := g.lanes[few].peek(now); light && at.Before(s.at) {
		s.lane, s.at = few, at
	}
	d := s.at.Sub(now)
	switch {
	case d > 0 && g.users[c.User] >= g.o.PerUser:
		return nil, &Error{g.o.What, d + time.Second}
	case d <= g.o.Wait:
		g.lanes[s.lane].take(s.at)
		return g.waitLocked(s, now), nil
	case d > g.o.Horizon || len(g.slots) >= maxSlots || g.addresses[c.Address] >= maxSlots/2:
		return nil, &Error{g.o.What, g.o.Horizon/2 + rand.N(g.o.Horizon/2)}
	}
	if fault.Broken(fault.KeepNoSlots) {
		return nil, &Error{g.o.What, d}
	}
	g.lanes[s.lane].take(s.at)
	g.slots[key] = s
	s.place = g.order[s.lane].PushBack(s)
	g.countLocked(s, 1)
	return nil, &Error{g.o.What, d}
}

// waitLocked returns s if there is something to wait for.
func (g *Gate) waitLocked(s *slot, now time.Time) *slot {
	if !s.at.After(now) {
		return nil
	}
	g.countLocked(s, 1)
	return s
}

// leave ends a wait. A turn that was given up is the next one's.
func (g *Gate) leave(s *slot, givenUp bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.countLocked(s, -1)
	if givenUp && s.lane >= 0 {
		g.lanes[s.lane].give(s.at)
	}
}

// expireLocked forgets the slots in which nobody came.
func (g *Gate) expireLocked(now time.Time) {
	for lane := range g.order {
		for e := g.order[lane].Front(); e != nil; e = g.order[lane].Front() {
			s := e.Value.(*slot)
			if now.Sub(s.at) <= g.o.Grace {
				break
			}
			g.removeLocked(s)
		}
	}
}

func (g *Gate) removeLocked(s *slot) {
	delete(g.slots, s.key)
	g.order[s.lane].Remove(s.place)
	g.countLocked(s, -1)
}

func (g *Gate) countLocked(s *slot, by int) {
	if g.users[s.User] += by; g.users[s.User] == 0 {
		delete(g.users, s.User)
	}
	if g.addresses[s.Address] += by; g.addresses[s.Address] == 0 {
		delete(g.addresses, s.Address)
	}
}

// lane is a row of turns, an interval apart; so many of them may be taken late
// that a burst passes at once.
type lane struct {
	interval, saved time.Duration
	next            time.Time
	given           []time.Time // turns given back, before next; few
}

// maxGiven bounds the turns given back that are remembered.
const maxGiven = 256

func newLane(perSecond, burst float64) lane {
	interval := time.Duration(float64(time.Second) / perSecond)
	return lane{interval: interval, saved: time.Duration((max(1, burst) - 1) * float64(interval))}
}

// peek returns the next turn; one before now is at once.
func (l *lane) peek(now time.Time) time.Time {
	at := later(l.next, now.Add(-l.saved))
	for _, t := range l.given {
		if t.Before(at) && !t.Before(now) {
			at = t
		}
	}
	return at
}

// take takes the turn that peek returned, and returns it.
func (l *lane) take(at time.Time) time.Time {
	for i, t := range l.given {
		if t.Equal(at) {
			l.given = append(l.given[:i], l.given[i+1:]...)
			return at
		}
	}
	l.next = at.Add(l.interval)
	return at
}

// give gives a turn back that was not used.
func (l *lane) give(at time.Time) {
	if l.next.Equal(at.Add(l.interval)) {
		l.next = at
		return
	}
	if len(l.given) == maxGiven {
		l.given = l.given[1:] // the one given first is the likeliest to be past
	}
	l.given = append(l.given, at)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
