package scenario

import (
	"context"
	"fmt"
	"time"

	"github.com/reprise-chat/reprise/bench/internal/lean"
	"github.com/reprise-chat/reprise/bench/internal/load"
	"github.com/reprise-chat/reprise/bench/internal/report"
)

// Storm is a server that is killed under 1,000 connected clients and started
// again: from the moment it listens until each client has reconnected, resumed
// and has the 100 events it lacks. The server keeps its default limits. What
// it is compared with is 1,000 clients that dial a bare server and get one
// message each.
func (b *Bench) Storm(ctx context.Context, extra ...load.Target) error {
	clients := b.size(1000)
	name := fmt.Sprintf("%d clients", clients)
	targets := append([]load.Target{load.Reprise{Path: b.Reprise, Limited: true, Profiled: b.Profile != ""}, load.Bare{}}, extra...)
	err := b.each(ctx, "storm", name, targets, func(r *round) (report.Sample, error) {
		if _, bare := r.target.(load.Bare); bare {
			return r.dialAll(clients)
		}
		return r.storm(clients, r.target)
	})
	if err != nil {
		return err
	}
	us := Key("storm", name, "reprise")
	b.Report.Ratio("storm, "+name+": time until all have caught up, of bare dialling", report.Seconds, us, Key("storm", name, load.Bare{}.Name()), 1.5, false)
	b.Report.Value("storm, "+name+": attempts a client", report.Attempts, us, 0, 2, "")
	return b.narrow(ctx, clients)
}

// narrow is a storm at a server that admits a hundred clients a second: most are
// sent away with a slot, and come in it.
func (b *Bench) narrow(ctx context.Context, clients int) error {
	const rate = 100
	again := load.Reprise{Path: b.Reprise, Limited: true, Attaches: rate, Profiled: b.Profile != ""}
	name := fmt.Sprintf("%d clients, %d attaches a second", clients, rate)
	first := again
	first.Attaches = 0
	err := b.each(ctx, "storm", name, []load.Target{first}, func(r *round) (report.Sample, error) { return r.storm(clients, again) })
	if err != nil {
		return err
	}
	us := Key("storm", name, "reprise")
	b.Report.Value("storm, "+name+": attempts a client", report.Attempts, us, 0, 2, "")
	return nil
}

// storm kills the server and starts it again as another target.
func (r *round) storm(clients int, again load.Target) (report.Sample, error) {
	m, places, err := r.absent(clients, 1)
	if err != nil {
		return nil, err
	}
	// They are connected when the server dies.
	lost := make(chan struct{})
	left := clients
	_, err = r.attach(r.loop, m, load.Config{ReadOnly: true}, func(int) load.On {
		return load.On{Lost: func(error) {
			if left--; left == 0 {
				close(lost)
			}
		}}
	})
	if err != nil {
		return nil, err
	}
	port := r.srv.Addr.Port()
	r.srv.Kill()
	if err := r.wait("clients to notice", lost); err != nil {
		return nil, err
	}
	r.target = again
	if err := r.start(port); err != nil {
		return nil, err
	}
	g := &group{round: r, memberships: m, places: places, done: make(chan struct{}), clients: make([]load.Client, clients)}
	u, err := r.during(func() error {
		r.loop.Do(func() {
			g.began = time.Now()
			for i := range m {
				g.dial(i, nil)
			}
		})
		return g.wait("clients to catch up", g.done)
	})
	if err != nil {
		return nil, err
	}
	s := u.sample(uint64(clients) * behind)
	g.sample(s)
	s[report.Seconds], s[report.Start] = u.took.Seconds(), r.srv.Took.Seconds()*1e3
	return s, nil
}

// dialAll is what connecting costs at least: a stream, and one message on it.
func (r *round) dialAll(clients int) (report.Sample, error) {
	m := users("u", clients, "room")
	done := make(chan struct{})
	left := clients
	u, err := r.during(func() error {
		r.loop.Do(func() {
			for i := range m {
				r.dialOne(r.loop, m[i], func() {
					if left--; left == 0 {
						close(done)
					}
				})
			}
		})
		return r.wait("clients to get a message", done)
	})
	if err != nil {
		return nil, err
	}
	return report.Sample{report.Seconds: u.took.Seconds(), report.Attempts: 1}, nil
}

func (r *round) dialOne(loop *lean.Loop, m load.Membership, ready func()) {
	r.target.Dial(loop, r.srv.Addr, load.Config{User: m.User, Rooms: m.Rooms, ReadOnly: true}, load.On{
		Ready: func(load.Place) { ready() },
		Lost:  func(err error) { r.fail(err) },
	})
}
