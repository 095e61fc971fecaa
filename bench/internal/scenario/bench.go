// Package scenario is what is measured: one file for each row of the budgets.
//
// A scenario runs its cases in rounds, and in each round every server in turn
// (A B A B ...), each time a fresh process with fresh data, so that what slows
// the machine for a while slows all of them. See [Bench].
package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/reprise-chat/reprise/bench/internal/lean"
	"github.com/reprise-chat/reprise/bench/internal/load"
	"github.com/reprise-chat/reprise/bench/internal/proc"
	"github.com/reprise-chat/reprise/bench/internal/report"
)

// Bench is what all scenarios of a run share.
type Bench struct {
	// Reprise is the path of the command that is measured.
	Reprise string
	// Dir is for data of servers; it should be on the disk that matters.
	Dir string
	// Scale divides the sizes of the quick set, for tests; 1 for measuring.
	Scale int
	// Full measures all sizes, and in more rounds.
	Full bool
	// Rounds and Duration of each; 0: as the set says.
	Rounds   int
	Duration time.Duration
	// Body is the size of a text in bytes.
	Body int
	// SDK has clients of the Go SDK beside the lean ones, where a scenario can.
	SDK bool

	// Profile is a directory for CPU profiles of Reprise, one of each measured
	// span; "": none are taken.
	Profile string

	Report *report.Report
	// Progress gets a line for each round.
	Progress io.Writer
}

// rounds returns how often each case is run.
func (b *Bench) rounds() int {
	switch {
	case b.Rounds > 0:
		return b.Rounds
	case b.Full:
		return 5
	}
	return 3
}

// duration returns how long a round measures.
func (b *Bench) duration() time.Duration {
	switch {
	case b.Duration > 0:
		return b.Duration
	case b.Full:
		return 4 * time.Second
	}
	return 2 * time.Second
}

// size scales a size down for tests.
func (b *Bench) size(n int) int { return max(1, n/max(1, b.Scale)) }

func (b *Bench) reprise() load.Target {
	return load.Reprise{Path: b.Reprise, Profiled: b.Profile != ""}
}

// round is one server in one case, measured once.
type round struct {
	*Bench
	ctx    context.Context
	target load.Target
	srv    *proc.Server
	dir    string
	label  string // scenario and case
	// Threads: loop has the subscribers; probing those of a probe, who must not
	// wait until a crowd of others has read; pub whoever must keep time.
	loop, probing, pub *lean.Loop
	failed             chan error
	// crowd has what a crowd waits, if it is measured; owned by loop's thread.
	crowd *hdrhistogram.Histogram
}

// each runs a case: its rounds, and in each the targets in turn.
func (b *Bench) each(ctx context.Context, scenario, name string, targets []load.Target, measure func(*round) (report.Sample, error)) error {
	for range b.rounds() {
		for _, t := range targets {
			s, err := b.once(ctx, t, scenario+", "+name, measure)
			if err != nil {
				return fmt.Errorf("%s, %s, %s: %w", scenario, name, t.Name(), err)
			}
			b.Report.Add(scenario, name, t.Name(), s)
			fmt.Fprintf(b.Progress, "%s, %s, %s: %s\n", scenario, name, t.Name(), report.Line(s))
		}
	}
	return nil
}

// inTurn calls f for each round with a Bench that measures one, so that what f
// compares is run A B A B and not A A B B.
func (b *Bench) inTurn(f func(*Bench) error) error {
	for range b.rounds() {
		one := *b
		one.Rounds = 1
		if err := f(&one); err != nil {
			return err
		}
	}
	return nil
}

// once starts a server, measures, and ends it.
func (b *Bench) once(ctx context.Context, t load.Target, label string, measure func(*round) (report.Sample, error)) (report.Sample, error) {
	dir, err := os.MkdirTemp(b.Dir, "data-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r := &round{Bench: b, ctx: ctx, target: t, dir: filepath.Join(dir, "d"), label: label, failed: make(chan error, 1)}
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		return nil, err
	}
	if err := r.start(0); err != nil {
		return nil, err
	}
	defer func() { r.srv.Kill() }() // not the one it is now: it may be restarted
	for _, l := range []**lean.Loop{&r.loop, &r.probing, &r.pub} {
		if *l, err = lean.NewLoop(); err != nil {
			return nil, err
		}
		defer (*l).Close()
	}
	s, err := measure(r)
	if err == nil {
		err = r.srv.Alive()
	}
	return s, err
}

func (r *round) start(port uint16) error {
	srv, err := r.target.Start(r.dir, port)
	if err == nil {
		r.srv = srv
	}
	return err
}

// fail has whoever waits return err.
func (r *round) fail(err error) {
	select {
	case r.failed <- err:
	default: // one is enough
	}
}

// waitLimit bounds every wait of a scenario: a server that never delivers must
// not look like a benchmark that takes long.
const waitLimit = 3 * time.Minute

// wait waits until done is closed.
func (r *round) wait(what string, done <-chan struct{}) error {
	return r.waitFor(waitLimit, what, done)
}

// waitFor waits until done is closed, for work that may take longer than others.
func (r *round) waitFor(patience time.Duration, what string, done <-chan struct{}) error {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-done:
		return nil
	case err := <-r.failed:
		return errors.Join(err, r.srv.Alive())
	case <-limit.C:
		return fmt.Errorf("waited %v for %s", patience, what)
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

// sleep lets the load run for a while.
func (r *round) sleep(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case err := <-r.failed:
		return errors.Join(err, r.srv.Alive())
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

// setup makes the memberships and says so if that fails.
func (r *round) setup(m []load.Membership) error {
	if err := r.target.Setup(r.ctx, r.srv.Addr, m); err != nil {
		return errors.Join(err, r.srv.Alive())
	}
	return nil
}

// users returns the memberships of n users in the same rooms.
func users(prefix string, n int, rooms ...string) []load.Membership {
	out := make([]load.Membership, n)
	for i := range out {
		out[i] = load.Membership{User: fmt.Sprintf("%s%d", prefix, i), Rooms: rooms}
	}
	return out
}

// attach connects a client for each membership, a few at a time, and waits
// until all are attached. on makes the callbacks, on the loop's thread; Ready
// and Lost may be left out.
func (r *round) attach(loop *lean.Loop, m []load.Membership, cfg load.Config, on func(i int) load.On) ([]load.Client, error) {
	const atOnce = 100
	clients := make([]load.Client, len(m))
	ready := make(chan struct{})
	left, next := len(m), 0
	var dial func()
	dial = func() {
		if next == len(m) {
			return
		}
		i := next
		next++
		c, o := cfg, on(i)
		c.User, c.Rooms = m[i].User, m[i].Rooms
		then := o.Ready
		o.Ready = func(p load.Place) {
			if then != nil {
				then(p)
			}
			if left--; left == 0 {
				close(ready)
			}
			dial()
		}
		if o.Lost == nil {
			o.Lost = func(err error) { r.fail(fmt.Errorf("client %s was lost: %w", c.User, err)) }
		}
		clients[i] = r.target.Dial(loop, r.srv.Addr, c, o)
	}
	loop.Do(func() {
		for range atOnce {
			dial()
		}
	})
	if len(m) == 0 {
		return nil, nil
	}
	return clients, r.wait("clients to attach", ready)
}

// usage is what the server used between two moments.
type usage struct {
	from, to proc.Usage
	took     time.Duration
}

// during measures the server while f runs.
func (r *round) during(f func() error) (u usage, err error) {
	err = r.profile(func() (err error) {
		if u.from, err = r.srv.Usage(); err != nil {
			return err
		}
		began := time.Now()
		if err := f(); err != nil {
			return err
		}
		u.took = time.Since(began)
		u.to, err = r.srv.Usage()
		return err
	})
	return u, err
}

// sample returns the metrics that follow from what a server used for so many
// events.
func (u usage) sample(events uint64) report.Sample {
	n := float64(events)
	s := report.Sample{
		report.Rate: n / u.took.Seconds(),
		report.RSS:  float64(u.to.RSS) / 1e6,
	}
	if events > 0 {
		s[report.CPU] = (u.to.CPU - u.from.CPU).Seconds() / n * 1e6
		if u.to.Mallocs > 0 {
			s[report.Allocs] = (u.to.Mallocs - u.from.Mallocs) / n
		}
	}
	return s
}

// histogram returns one for waiting times up to a minute.
func histogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(time.Minute), 3) }

// record notes a waiting time.
func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(1, int64(d)), int64(time.Minute))) // now in its range
}

// quantiles adds those of h to s, in milliseconds.
func quantiles(s report.Sample, h *hdrhistogram.Histogram) {
	for m, q := range map[report.Metric]float64{report.P50: 50, report.P99: 99, report.P999: 99.9} {
		s[m] = ms(h, q)
	}
}

func ms(h *hdrhistogram.Histogram, q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e6 }
