// Package clock is the time of day for what is durable. The machine's clock can
// be set, by a person, by a time server that is wrong, by a battery that was
// empty, and one look at it must not decide what is removed for ever.
//
// A [Clock] keeps a course: the time of day as the monotonic clock carries it
// on. While the machine's clock agrees, the course follows it. When the two part,
// the machine's clock has been set, and the course follows only after the new
// time has held for as long as the step is wide, at most [Settle]. A course goes
// on over a restart, from where it was noted.
//
// Until then the two bound the truth, and each use takes the end at which nothing
// is lost: an event is stamped with the later one ([Clock.Now]), and its age is
// reckoned with the earlier one ([Clock.Aged]).
package clock

import (
	"log/slog"
	"sync"
	"time"
)

const (
	// Settle is how long a clock that was set has to hold before it is believed.
	Settle = time.Hour
	// tolerance is by how much the two may differ from one look to the next
	// without one of them having been set.
	tolerance = 2 * time.Second
)

// Reading is one look at the machine: its time of day, and the time since some
// moment by a clock that nobody sets.
type Reading struct {
	Wall time.Time
	Mono time.Duration
}

// Clock is a time of day that is not moved by one look. Safe for concurrent
// use. Its methods take well under a microsecond and never wait.
type Clock struct {
	read   func() Reading
	logger *slog.Logger

	mu   sync.Mutex
	last Reading // the course: Wall is believed, and was so at Mono; guarded by mu
	// believed: Last has a past that says it may be; else it counts from
	// believe on. Guarded by mu.
	believed bool
	believe  time.Duration
	// ahead is by how much the machine's clock was found ahead of the course at
	// since; 0: it is not. Guarded by mu.
	ahead time.Duration
	since time.Duration
}

// System reads the machine's clock.
func System() func() Reading {
	start := time.Now()
	return func() Reading {
		now := time.Now()
		return Reading{Wall: now.Round(0), Mono: now.Sub(start)}
	}
}

// New returns a clock that goes on from seen, the course as it was noted when
// this data was last in use. A zero seen means that it never was: if fresh, because
// there was no data, the machine is believed; if not, it has to hold for Settle
// first.
func New(read func() Reading, seen time.Time, fresh bool, logger *slog.Logger) *Clock {
	c := &Clock{read: read, logger: logger, last: read(), believed: true}
	switch {
	case !seen.IsZero():
		c.last.Wall = seen
	case !fresh:
		c.believed, c.believe = false, c.last.Mono+Settle
	}
	return c
}

// Now returns the time to stamp what is stored: never earlier than the course.
func (c *Clock) Now() time.Time {
	wall, course, _ := c.look()
	if course.After(wall) {
		return course
	}
	return wall
}

// Aged returns the time by which to reckon ages: never later than the course.
// ok is false if nothing is known that says it is right: then nothing is old.
func (c *Clock) Aged() (now time.Time, ok bool) {
	wall, course, ok := c.look()
	if course.Before(wall) {
		return course, ok
	}
	return wall, ok
}

// look reads the machine and moves the course on.
func (c *Clock) look() (wall, course time.Time, believed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.read()
	passed := max(0, now.Mono-c.last.Mono)
	c.last.Wall, c.last.Mono = c.last.Wall.Add(passed), now.Mono
	ahead := now.Wall.Sub(c.last.Wall)
	switch {
	case ahead.Abs() <= tolerance:
		c.last.Wall, c.ahead = now.Wall, 0
	case !c.believed: // it has no past to be believed for
		c.last.Wall, c.believe = now.Wall, now.Mono+Settle
	case c.ahead == 0 || (ahead-c.ahead).Abs() > tolerance:
		c.ahead, c.since = ahead, now.Mono
		if worthTelling(ahead) {
			c.logger.Warn("the clock was set, or the server was away: until it has held, ages are reckoned as if it had not been",
				"step", ahead.Round(time.Second).String(), "has_to_hold", min(ahead.Abs(), Settle).String())
		}
	case now.Mono-c.since >= min(ahead.Abs(), Settle):
		c.last.Wall, c.ahead = now.Wall, 0
		if worthTelling(ahead) {
			c.logger.Warn("the clock that was set has held and is believed", "step", ahead.Round(time.Second).String())
		}
	}
	if !c.believed && now.Mono >= c.believe {
		c.believed = true
	}
	return now.Wall, c.last.Wall, c.believed
}

// worthTelling reports whether a step is more than what a restart takes.
func worthTelling(step time.Duration) bool { return step.Abs() >= Settle || step < 0 }
