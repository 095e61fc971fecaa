package scenario

import (
	"context"
	"fmt"
	"time"

	"github.com/reprise-chat/reprise/bench/internal/load"
	"github.com/reprise-chat/reprise/bench/internal/report"
)

const (
	probeRate        = 100 // events/s
	probeSubscribers = 10
	roomsEach        = 500 // rooms of one user, when rooms are made by the thousand
)

// Grow is what an event, an attach and a start cost in a small store and in a
// large one: 1,000 and 100,000 rooms, 10 thousand and 10 million events (a
// million in the quick set).
func (b *Bench) Grow(ctx context.Context) error {
	events := 1_000_000
	if b.Full {
		events = 10_000_000
	}
	rooms := b.size(100_000)
	if !b.Full {
		rooms = b.size(20_000)
	}
	small := growth{b.size(1000), b.size(10_000)}
	for _, c := range []struct {
		name  string
		large growth
	}{
		{"rooms", growth{rooms, small.events}},
		{"stored events", growth{small.rooms, b.size(events)}},
	} {
		if err := b.growCase(ctx, c.name, small, c.large); err != nil {
			return err
		}
	}
	return nil
}

// growth is how much a store holds.
type growth struct{ rooms, events int }

func (g growth) String() string { return fmt.Sprintf("%d rooms, %d events", g.rooms, g.events) }

func (b *Bench) growCase(ctx context.Context, name string, small, large growth) error {
	scenario := "grow, " + name
	fewer := *b
	fewer.Rounds = max(1, b.rounds()/2) // filling takes most of the time
	err := fewer.inTurn(func(b *Bench) error {
		for _, g := range []growth{small, large} {
			err := b.each(ctx, scenario, g.String(), []load.Target{b.reprise()}, func(r *round) (report.Sample, error) { return r.grow(g) })
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s, l := Key(scenario, small.String(), "reprise"), Key(scenario, large.String(), "reprise")
	b.Report.Ratio(scenario+": CPU of an event, large against small", report.CPU, l, s, 1.25, false)
	b.Report.Ratio(scenario+": p99 of an event, large against small", report.P99, l, s, 2, false)
	b.Report.Ratio(scenario+": CPU of an attach, large against small", report.Attach, l, s, 1.25, false)
	b.Report.Ratio(scenario+": start-up, large against small", report.Start, l, s, 2, false)
	return nil
}

func (r *round) grow(g growth) (report.Sample, error) {
	var m []load.Membership
	for room := 0; room < g.rooms; room += roomsEach {
		owner := load.Membership{User: fmt.Sprintf("owner-%d", room)}
		for i := room; i < min(room+roomsEach, g.rooms); i++ {
			owner.Rooms = append(owner.Rooms, fmt.Sprintf("grown-%06d", i))
		}
		m = append(m, owner)
	}
	// Every room beyond those that hold the events is one more join only.
	if err := r.setup(m); err != nil {
		return nil, err
	}
	holders := m[:min(len(m), 2)]
	in := 0
	for _, h := range holders {
		in += len(h.Rooms)
	}
	if err := r.fill(holders, max(1, g.events/in)); err != nil {
		return nil, err
	}
	// The restarted server has nothing in memory that filling put there.
	port := r.srv.Addr.Port()
	if err := r.srv.Stop(); err != nil {
		return nil, err
	}
	if err := r.start(port); err != nil {
		return nil, err
	}
	took := r.srv.Took
	if err := r.quiet(); err != nil {
		return nil, err
	}
	attach, err := r.attachCost(r.size(500))
	if err != nil {
		return nil, err
	}
	p, err := r.newProbe("probe", probeSubscribers)
	if err != nil {
		return nil, err
	}
	s, err := p.run(probeRate, r.duration())
	if err != nil {
		return nil, err
	}
	s[report.Attach], s[report.Start] = attach, took.Seconds()*1e3
	return s, nil
}

// quiet waits until the server does nothing by itself any more: what filling
// has left to be compacted is not a cost of the next event.
func (r *round) quiet() error {
	const look, limit = 300 * time.Millisecond, 30 * time.Second
	for end := time.Now().Add(limit); time.Now().Before(end); {
		u, err := r.during(func() error { return r.sleep(look) })
		if err != nil {
			return err
		}
		if u.to.CPU-u.from.CPU <= look/20 {
			return nil
		}
	}
	return nil // as quiet as it gets
}

// attachCost returns the server's CPU for one attach of a user in one room, in
// milliseconds.
func (r *round) attachCost(clients int) (float64, error) {
	m := users("attaching", clients, "attach")
	if err := r.setup(m); err != nil {
		return 0, err
	}
	u, err := r.during(func() error {
		_, err := r.attach(r.loop, m, load.Config{ReadOnly: true}, func(int) load.On { return load.On{} })
		return err
	})
	return (u.to.CPU - u.from.CPU).Seconds() * 1e3 / float64(clients), err
}
