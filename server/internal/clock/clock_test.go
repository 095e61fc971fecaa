package clock

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

// machine is a machine whose clock can be set.
type machine struct {
	Reading
	out strings.Builder
}

const day = 24 * time.Hour

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newMachine() *machine { return &machine{Reading: Reading{Wall: noon, Mono: 5 * time.Second}} }

func (m *machine) clock(seen time.Time, fresh bool) *Clock {
	return New(func() Reading { return m.Reading }, seen, fresh, slog.New(slog.NewTextHandler(&m.out, nil)))
}

// pass lets time pass, with a look every so often.
func (m *machine) pass(c *Clock, d, look time.Duration) {
	for ; d > 0; d -= look {
		m.Wall, m.Mono = m.Wall.Add(min(d, look)), m.Mono+min(d, look)
		c.Aged()
	}
}

func (m *machine) set(by time.Duration) { m.Wall = m.Wall.Add(by) }

// want compares what the clock says with the time of day, as offsets from noon.
func want(t *testing.T, c *Clock, now, aged time.Duration) {
	t.Helper()
	if got := c.Now().Sub(noon); got != now {
		t.Errorf("now is noon+%v, want noon+%v", got, now)
	}
	if got, ok := c.Aged(); !ok || got.Sub(noon) != aged {
		t.Errorf("ages are reckoned with noon+%v (%t), want noon+%v", got.Sub(noon), ok, aged)
	}
}

// TestFollows slews the clock: nothing is suspected.
func TestFollows(t *testing.T) {
	m := newMachine()
	c := m.clock(time.Time{}, true)
	for range 100 {
		m.pass(c, time.Minute, time.Second)
		m.set(30 * time.Millisecond)
	}
	want(t, c, 100*time.Minute+3*time.Second, 100*time.Minute+3*time.Second)
	if m.out.Len() > 0 {
		t.Error(m.out.String())
	}
}

// TestExcursion sets the clock 40 days ahead, or back, for some seconds.
func TestExcursion(t *testing.T) {
	for _, by := range []time.Duration{40 * day, -40 * day} {
		m := newMachine()
		c := m.clock(time.Time{}, true)
		m.set(by)
		m.pass(c, 6*time.Second, 100*time.Millisecond)
		want(t, c, max(0, by)+6*time.Second, min(0, by)+6*time.Second)
		m.set(-by)
		m.pass(c, time.Second, time.Second)
		want(t, c, 7*time.Second, 7*time.Second)
		if !strings.Contains(m.out.String(), "the clock was set") {
			t.Error("nothing is said")
		}
	}
}

// TestHolds sets the clock for good: it is believed once it has held.
func TestHolds(t *testing.T) {
	for _, step := range []struct{ by, holds time.Duration }{
		{40 * day, Settle}, {-40 * day, Settle}, {90 * time.Second, 90 * time.Second}, {-5 * time.Minute, 5 * time.Minute},
	} {
		m := newMachine()
		c := m.clock(time.Time{}, true)
		m.set(step.by)
		c.Aged()
		m.pass(c, step.holds-time.Second, time.Second)
		want(t, c, max(0, step.by)+step.holds-time.Second, min(0, step.by)+step.holds-time.Second)
		m.pass(c, time.Second, time.Second)
		want(t, c, step.by+step.holds, step.by+step.holds)
	}
}

// TestWanders sets the clock anew before it has held: each time it counts
// from there.
func TestWanders(t *testing.T) {
	m := newMachine()
	c := m.clock(time.Time{}, true)
	for range 10 {
		m.set(day)
		m.pass(c, Settle-time.Minute, time.Minute)
	}
	want(t, c, 10*day+10*(Settle-time.Minute), 10*(Settle-time.Minute))
}

// TestRestart goes on from what was noted.
func TestRestart(t *testing.T) {
	m := newMachine()
	c := m.clock(noon.Add(-40*day), false) // it was away so long, or the clock is wrong
	want(t, c, 0, -40*day)
	m.pass(c, Settle-time.Minute, time.Minute)
	want(t, c, Settle-time.Minute, -40*day+Settle-time.Minute)
	m.pass(c, time.Minute, time.Minute)
	want(t, c, Settle, Settle)

	m = newMachine()
	c = m.clock(noon.Add(-30*time.Second), false) // an ordinary one
	want(t, c, 0, -30*time.Second)
	m.pass(c, 30*time.Second, time.Second)
	want(t, c, 30*time.Second, 30*time.Second)
	if m.out.Len() > 0 {
		t.Error(m.out.String())
	}

	m = newMachine()
	c = m.clock(noon.Add(40*day), false) // the clock has forgotten
	want(t, c, 40*day, 0)
}

// TestUnknown has data of which nobody noted when it was last in use.
func TestUnknown(t *testing.T) {
	m := newMachine()
	c := m.clock(time.Time{}, false)
	m.pass(c, Settle/2, time.Minute)
	m.set(40 * day)
	m.pass(c, Settle-time.Minute, time.Minute)
	if _, ok := c.Aged(); ok {
		t.Error("ages are reckoned before the clock has held")
	}
	m.pass(c, 2*time.Minute, time.Minute)
	if now, ok := c.Aged(); !ok || !now.Equal(m.Wall) {
		t.Errorf("%v, %t", now, ok)
	}
}

func BenchmarkNow(b *testing.B) {
	c := New(System(), time.Time{}, true, slog.Default())
	for b.Loop() {
		c.Now()
	}
}
