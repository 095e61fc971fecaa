package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/reprise-chat/reprise/bench/internal/load"
	"github.com/reprise-chat/reprise/bench/internal/report"
)

// Peer is a server of another project, and how much less of the server's CPU a
// delivery of Reprise is to cost.
type Peer struct {
	load.Target
	// Times is the budget; 0: there is none, it is shown beside.
	Times float64
}

// bounded is a target that works best with a publisher less far ahead of the
// slowest of so many subscribers than the others'.
type bounded interface{ Ahead(subscribers int) int }

// Peers is the saturated fan-out and the memory of an idle connection, against
// servers that a user would pick instead. They keep their events in memory at
// most; Reprise has each on disk before it is shown.
func (b *Bench) Peers(ctx context.Context, peers ...Peer) error {
	if err := b.PeersFanout(ctx, peers...); err != nil {
		return err
	}
	clients := b.size(1000)
	return b.each(ctx, "peers", fmt.Sprintf("%d idle clients, 1 room", clients), b.beside(peers), func(r *round) (report.Sample, error) {
		// Clients that may publish, because those of the peers may.
		return r.idle(clients, 1, load.Config{})
	})
}

// PeersFanout is the saturated fan-out alone.
func (b *Bench) PeersFanout(ctx context.Context, peers ...Peer) error {
	for _, subscribers := range []int{100, 1000} {
		if err := b.peersFanout(ctx, b.size(subscribers), b.beside(peers), peers); err != nil {
			return err
		}
	}
	return nil
}

// beside returns the servers of a round: Reprise, and then the peers.
func (b *Bench) beside(peers []Peer) []load.Target {
	targets := []load.Target{b.reprise()}
	for _, p := range peers {
		targets = append(targets, p.Target)
	}
	return targets
}

func (b *Bench) peersFanout(ctx context.Context, subscribers int, targets []load.Target, peers []Peer) error {
	// With an eighth of that in flight everybody's deliveries cost more; with
	// eight times as much no peer's cost less.
	const most = 1024
	name := fmt.Sprintf("%d subscribers, saturated", subscribers)
	ahead := make([]int, len(targets))
	for i, t := range targets {
		ahead[i] = most
		if t, ok := t.(bounded); ok {
			ahead[i] = min(most, t.Ahead(subscribers))
		}
	}
	for range b.rounds() {
		for i, t := range targets {
			s, err := b.lossless(ctx, t, subscribers, &ahead[i])
			if err != nil {
				return fmt.Errorf("peers, %s, %s: %w", name, t.Name(), err)
			}
			b.Report.Add("peers", name, t.Name(), s)
			fmt.Fprintf(b.Progress, "peers, %s, %s: %s\n", name, t.Name(), report.Line(s))
		}
	}
	for _, p := range peers {
		if p.Times > 0 {
			b.Report.Ratio(fmt.Sprintf("peers, %s: deliveries a CPU second of %s", name, p.Name()), report.CPU,
				Key("peers", name, p.Name()), Key("peers", name, "reprise"), p.Times, true)
		}
	}
	for i, t := range targets {
		if ahead[i] < most {
			b.note("peers, %s: %s has at most %d events in flight, others %d.", name, t.Name(), ahead[i], most)
		}
	}
	return nil
}

// lossless measures the fan-out with the largest number of events in flight
// with which a server loses neither events nor clients: from ahead down, by
// halves. Only a peer may have less.
func (b *Bench) lossless(ctx context.Context, t load.Target, subscribers int, ahead *int) (report.Sample, error) {
	const least = 16
	for {
		s, err := b.once(ctx, t, fmt.Sprintf("peers, %d subscribers", subscribers), func(r *round) (report.Sample, error) { return r.cycles(subscribers, *ahead) })
		_, ours := t.(load.Reprise)
		if err == nil || ours || *ahead <= least || errors.Is(err, errStuck) || ctx.Err() != nil {
			return s, err
		}
		b.note("peers, %d subscribers: %s fails with %d events in flight: %v.", subscribers, t.Name(), *ahead, err)
		*ahead /= 2
	}
}

// cycles measures a saturated fan-out while everything in flight is replaced
// several times over. A server with a queue for each client works and delivers
// in turns that take as long as all that is in flight, so that a fixed time
// might see only one of the two.
func (r *round) cycles(subscribers, ahead int) (report.Sample, error) {
	const times = 4
	f, err := r.flood(subscribers, ahead)
	if err != nil {
		return nil, err
	}
	from, err := r.reached(f, uint64(ahead), time.Now().Add(r.duration()/4))
	if err != nil {
		return nil, err
	}
	var to progress
	u, err := r.during(func() (err error) {
		to, err = r.reached(f, from.everybody+times*uint64(ahead), time.Now().Add(r.duration()))
		return err
	})
	if err != nil {
		return nil, err
	}
	r.loop.Call(func() { f.stopped = true })
	return u.sample(to.delivered - from.delivered), nil
}

// progress is how far a flood has come.
type progress struct{ delivered, everybody uint64 }

// reached waits until all subscribers have that event, and until that time.
func (r *round) reached(f *flood, everybody uint64, earliest time.Time) (progress, error) {
	latest := time.Now().Add(waitLimit)
	for {
		var p progress
		r.loop.Call(func() { p = progress{f.delivered, f.everybody} })
		switch now := time.Now(); {
		case p.everybody >= everybody && !now.Before(earliest):
			return p, nil
		case now.After(latest):
			return p, fmt.Errorf("%w: all subscribers have %d events after %v, and should have %d", errStuck, p.everybody, waitLimit, everybody)
		}
		if err := r.sleep(5 * time.Millisecond); err != nil {
			return p, err
		}
	}
}

var errStuck = errors.New("events are lost, or the server hardly moves")

func (b *Bench) note(format string, a ...any) {
	line := fmt.Sprintf(format, a...)
	fmt.Fprintln(b.Progress, line)
	b.Report.Notes = append(b.Report.Notes, line)
}
