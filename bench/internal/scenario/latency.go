package scenario

import (
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/reprise-chat/reprise/bench/internal/bare"
	"github.com/reprise-chat/reprise/bench/internal/lean"
	"github.com/reprise-chat/reprise/bench/internal/load"
	"github.com/reprise-chat/reprise/bench/internal/proc"
	"github.com/reprise-chat/reprise/bench/internal/report"
)

// Latency is from the moment an event was meant to be published, at a fixed
// rate, until it was delivered. A server that is late with one event is
// charged for all that had to wait behind it.
func (b *Bench) Latency(ctx context.Context, extra ...load.Target) error {
	targets := append([]load.Target{b.reprise(), load.Bare{}, load.Bare{Pebble: true}}, extra...)
	if b.SDK {
		targets = append(targets, load.SDK{Target: b.reprise()})
	}
	for _, c := range []struct{ subscribers, rate int }{{1, 200}, {100, 100}} {
		name := fmt.Sprintf("%d subscribers, %d events/s", c.subscribers, c.rate)
		err := b.inTurn(func(b *Bench) error {
			err := b.each(ctx, "latency", name, targets, func(r *round) (report.Sample, error) {
				return r.latency(c.subscribers, c.rate)
			})
			if err != nil {
				return err
			}
			return b.oneSync(ctx)
		})
		if err != nil {
			return err
		}
		if c.subscribers == 1 {
			sync, _ := b.Report.Find("latency", "one sync", "file").Median(report.P50)
			b.Report.Value("latency, publish to deliver, less one sync", report.P50, Key("latency", name, "reprise"), sync, 0.3, "ms")
		}
	}
	return nil
}

// oneSync measures what one publisher waits for a plain file: one write and
// one fdatasync.
func (b *Bench) oneSync(ctx context.Context) error {
	p, err := b.limit(ctx, "file", 1, 1, false)
	if err != nil {
		return err
	}
	b.Report.Add("latency", "one sync", "file", report.Sample{report.P50: p.P50 / 1e3, report.P99: p.P99 / 1e3})
	return nil
}

// limit runs a committer in a process of its own, with publishers inside.
func (b *Bench) limit(ctx context.Context, what string, publishers, rooms int, ids bool) (p bare.Publishes, err error) {
	args := []string{
		"limit", what, "--dir", b.Dir, "--duration", b.duration().String(),
		"--publishers", fmt.Sprint(publishers), "--rooms", fmt.Sprint(rooms), "--body", fmt.Sprint(b.Body),
	}
	if ids {
		args = append(args, "--ids")
	}
	return p, proc.Output(ctx, &p, args...)
}

func (r *round) latency(subscribers, rate int) (report.Sample, error) {
	p, err := r.newProbe("room", subscribers)
	if err != nil {
		return nil, err
	}
	return p.run(rate, r.duration())
}

// probe is a room with one publisher at a fixed rate and some subscribers.
type probe struct {
	*round
	publisher   load.Client
	subscribers uint64
	took        *hdrhistogram.Histogram // owned by probing's thread
	delivered   uint64                  // the same
	expected    uint64
	done        chan struct{}
	number      uint64 // owned by pub's thread
}

// newProbe attaches the clients of a probe.
func (r *round) newProbe(room string, subscribers int) (*probe, error) {
	m := users(room+"-sub", subscribers, room)
	publisher := users(room+"-pub", 1, room)
	if err := r.setup(append(publisher, m...)); err != nil {
		return nil, err
	}
	p := &probe{round: r, subscribers: uint64(subscribers), took: histogram()}
	if _, err := r.attach(r.probing, m, load.Config{ReadOnly: true}, p.on); err != nil {
		return nil, err
	}
	clients, err := r.attach(r.pub, publisher, load.Config{Deaf: true}, func(int) load.On {
		return load.On{Receipt: func(_ uint64, err error) {
			if err != nil {
				r.fail(err)
			}
		}}
	})
	if err != nil {
		return nil, err
	}
	p.publisher = clients[0]
	return p, nil
}

func (p *probe) on(int) load.On {
	c := load.NewCounter(1)
	return load.On{Event: func(room int, body []byte) error {
		number, at, err := load.ParseBody(body)
		if err == nil {
			err = c.Add(room, number)
		}
		if err != nil {
			p.fail(err)
			return err
		}
		record(p.took, time.Since(at))
		if p.delivered++; p.delivered == p.expected {
			close(p.done)
		}
		return nil
	}}
}

// run publishes at a rate for as long as d, and waits until everything was
// delivered.
func (p *probe) run(rate int, d time.Duration) (report.Sample, error) {
	events := max(1, int(d.Seconds()*float64(rate)))
	deliveries := uint64(events) * p.subscribers
	p.probing.Call(func() {
		p.took.Reset()
		p.delivered, p.expected, p.done = 0, deliveries, make(chan struct{})
	})
	u, err := p.during(func() error {
		p.pub.Do(func() { p.tick(p.pub, time.Now(), rate, 0, events) })
		return p.wait("events of the probe", p.done)
	})
	if err != nil {
		return nil, err
	}
	s := u.sample(deliveries)
	p.probing.Call(func() { quantiles(s, p.took) })
	return s, nil
}

// tick publishes what is due by now, each event with the time that it was due
// at, and comes again when the next one is.
func (p *probe) tick(loop *lean.Loop, began time.Time, rate, sent, events int) {
	for ; sent < events; sent++ {
		due := began.Add(time.Duration(sent) * time.Second / time.Duration(rate))
		if time.Now().Before(due) {
			loop.After(due, func() { p.tick(loop, began, rate, sent, events) })
			return
		}
		p.number++
		p.publisher.Publish(0, p.number, "", load.AppendBody(nil, p.Body, p.number, due))
	}
}

// burst publishes events of that size at once, and waits until they were
// delivered.
func (p *probe) burst(events, size int) error {
	p.probing.Call(func() {
		p.delivered, p.expected, p.done = 0, uint64(events)*p.subscribers, make(chan struct{})
	})
	p.pub.Do(func() {
		for range events {
			p.number++
			p.publisher.Publish(0, p.number, "", load.AppendBody(nil, size, p.number, time.Now()))
		}
	})
	return p.wait("a burst", p.done)
}
