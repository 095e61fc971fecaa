package scenario

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/reprise-chat/reprise/bench/internal/load"
	"github.com/reprise-chat/reprise/bench/internal/report"
)

// settle is how long a server has to give back what setting up has cost.
func (b *Bench) settle() time.Duration {
	if b.Scale > 1 {
		return 200 * time.Millisecond
	}
	return 2 * time.Second
}

// collect has the servers that are started from now on collect garbage often,
// those in Go at least: memory is what they hold, and not what their collector
// has yet to find, which is as much again.
func collect() (undo func(), err error) {
	const name = "GOGC"
	was, set := os.LookupEnv(name)
	if err := os.Setenv(name, "10"); err != nil {
		return nil, err
	}
	return func() {
		if set {
			os.Setenv(name, was)
		} else {
			os.Unsetenv(name)
		}
	}, nil
}

// Idle is the resident memory that one more attachment costs which does
// nothing, by the door through which it came and by its number of rooms.
func (b *Bench) Idle(ctx context.Context, extra ...load.Target) error {
	undo, err := collect()
	if err != nil {
		return err
	}
	defer undo()
	type idle struct {
		clients, rooms int
		door           string
		readOnly       bool
	}
	clients := b.size(1000)
	cases := []idle{
		{clients, 1, "1 room, server stream", true},
		{clients, 1, "1 room, bidirectional stream", false},
		{clients, 100, "100 rooms, server stream", true},
	}
	if many := b.size(5000); b.Full {
		cases = append(cases, idle{many, 1, "1 room, server stream", true}, idle{many, 1, "1 room, bidirectional stream", false})
	}
	for _, c := range cases {
		name := fmt.Sprintf("%d clients, %s", c.clients, c.door)
		err := b.each(ctx, "idle", name, append([]load.Target{b.reprise(), load.Bare{}}, extra...), func(r *round) (report.Sample, error) {
			return r.idle(c.clients, c.rooms, load.Config{ReadOnly: c.readOnly})
		})
		if err != nil {
			return err
		}
		us := Key("idle", name, "reprise")
		if c.rooms == 1 {
			b.Report.Ratio("idle, "+name+": memory of bare", report.PerConn, us, Key("idle", name, load.Bare{}.Name()), 1.15, false)
			continue
		}
		one, _ := b.Report.Find("idle", fmt.Sprintf("%d clients, 1 room, server stream", clients), "reprise").Median(report.PerConn)
		b.Report.Value("idle, "+name+": memory more than in 1 room", report.PerConn, us, one, 20, "KiB")
	}
	return nil
}

// warmUp has a server allocate what it allocates once, so that it is not
// charged to the first clients.
func (r *round) warmUp() error {
	const clients, events = 50, 200
	m := users("warm", clients, "warm")
	if err := r.setup(m); err != nil {
		return err
	}
	attached, err := r.attach(r.loop, m, load.Config{ReadOnly: true}, func(int) load.On { return load.On{} })
	if err != nil {
		return err
	}
	if err := r.fill(m[:1], events); err != nil {
		return err
	}
	r.loop.Call(func() {
		for _, c := range attached {
			c.Close()
		}
	})
	return r.sleep(r.settle() / 2)
}

func (r *round) idle(clients, rooms int, cfg load.Config) (report.Sample, error) {
	names := make([]string, rooms)
	for i := range names {
		names[i] = fmt.Sprintf("room-%03d", i)
	}
	m := users("u", clients, names...)
	if err := r.setup(m); err != nil {
		return nil, err
	}
	if err := r.warmUp(); err != nil {
		return nil, err
	}
	from, err := r.srv.Usage()
	if err != nil {
		return nil, err
	}
	if _, err := r.attach(r.loop, m, cfg, func(int) load.On { return load.On{} }); err != nil {
		return nil, err
	}
	return r.grown(from.RSS, clients)
}

// grown returns the memory that has come for each of so many connections.
func (r *round) grown(from int64, connections int) (report.Sample, error) {
	if err := r.sleep(r.settle()); err != nil {
		return nil, err
	}
	to, err := r.srv.Usage()
	if err != nil {
		return nil, err
	}
	return report.Sample{
		report.PerConn: float64(to.RSS-from) / 1024 / float64(connections), report.RSS: float64(to.RSS) / 1e6,
	}, nil
}

// Stalled is the memory that readers cost which are connected and take nothing
// more, while megabytes are published to their room; and, to compare, what as
// many cost that are idle in another room meanwhile.
func (b *Bench) Stalled(ctx context.Context, extra ...load.Target) error {
	clients := b.size(200)
	name := func(what string) string { return fmt.Sprintf("%d clients, %s", clients, what) }
	targets := append([]load.Target{b.reprise(), load.Bare{}}, extra...)
	err := b.inTurn(func(b *Bench) error {
		for _, room := range []string{"stalled", "idle"} {
			err := b.each(ctx, "stalled", name(room), targets, func(r *round) (report.Sample, error) { return r.stalled(clients, room) })
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	idle, _ := b.Report.Find("stalled", name("idle"), "reprise").Median(report.PerConn)
	b.Report.Value("stalled reader: memory more than an idle one", report.PerConn, Key("stalled", name("stalled"), "reprise"), idle, 128, "KiB")
	return nil
}

// stalled attaches clients that take nothing to a room of that name, and
// publishes to the room "stalled".
func (r *round) stalled(clients int, room string) (report.Sample, error) {
	const events = 40_000 // some 7 MB: far more than any window
	m := users("u", clients, room)
	publisher := users("publisher", 1, "stalled")
	if err := r.setup(append(publisher, m...)); err != nil {
		return nil, err
	}
	if err := r.warmUp(); err != nil {
		return nil, err
	}
	from, err := r.srv.Usage()
	if err != nil {
		return nil, err
	}
	if _, err := r.attach(r.loop, m, load.Config{ReadOnly: true, Stalled: true}, r.counting(1)); err != nil {
		return nil, err
	}
	if err := r.fill(publisher, r.size(events)); err != nil {
		return nil, err
	}
	return r.grown(from.RSS, clients)
}
