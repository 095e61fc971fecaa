package scenario

import (
	"context"
	"fmt"
	"time"

	"github.com/reprise-chat/reprise/bench/internal/load"
	"github.com/reprise-chat/reprise/bench/internal/report"
)

// Fanout is one room with many subscribers, each on its own connection, and a
// publisher that never waits for more than that the slowest of them is a few
// thousand events behind (saturated), or that waits until everybody has each
// event (spaced).
func (b *Bench) Fanout(ctx context.Context, extra ...load.Target) error {
	targets := append([]load.Target{b.reprise(), load.Bare{}}, extra...)
	if b.SDK {
		targets = append(targets, load.SDK{Target: b.reprise()})
	}
	for _, subscribers := range []int{100, 1000} {
		subscribers = b.size(subscribers)
		for _, p := range paces {
			name := fmt.Sprintf("%d subscribers, %s", subscribers, p.name)
			err := b.each(ctx, "fanout", name, targets, func(r *round) (report.Sample, error) {
				return r.fanout(subscribers, p.ahead)
			})
			if err != nil {
				return err
			}
			us, limit := Key("fanout", name, "reprise"), Key("fanout", name, load.Bare{}.Name())
			if p.budget {
				b.Report.Ratio("fan-out, "+name+": events/s of bare", report.Rate, us, limit, 0.8, true)
				b.Report.Ratio("fan-out, "+name+": CPU a delivery of bare", report.CPU, us, limit, 1.25, false)
			}
		}
	}
	return nil
}

// Key names a series.
func Key(scenario, name, target string) report.Key {
	return report.Key{Scenario: scenario, Case: name, Target: target}
}

// pace is how far a publisher may be ahead of the slowest subscriber.
type pace struct {
	name   string
	ahead  int
	budget bool
}

var paces = []pace{
	{"saturated", 4096, true},
	{"spaced", 1, false},
}

func (r *round) fanout(subscribers, ahead int) (report.Sample, error) {
	f, err := r.flood(subscribers, ahead)
	if err != nil {
		return nil, err
	}
	if err := r.sleep(r.duration() / 4); err != nil { // the first moments are not typical
		return nil, err
	}
	var from, to uint64
	u, err := r.during(func() error {
		r.loop.Call(func() { from = f.delivered })
		defer r.loop.Call(func() { to = f.delivered })
		return r.sleep(r.duration())
	})
	if err != nil {
		return nil, err
	}
	r.loop.Call(func() { f.stopped = true })
	return u.sample(to - from), nil
}

// flood attaches the clients of a flood and opens the gate.
func (r *round) flood(subscribers, ahead int) (*flood, error) {
	m := users("u", subscribers, "room")
	publisher := users("publisher", 1, "room")
	if err := r.setup(append(publisher, m...)); err != nil {
		return nil, err
	}
	f := &flood{round: r, ahead: uint64(ahead), subscribers: subscribers, reached: make([]int, ahead)}
	if _, err := r.attach(r.loop, m, load.Config{ReadOnly: true}, f.on); err != nil {
		return nil, err
	}
	// The publisher's own events would be a delivery that no subscriber counts.
	p, err := r.attach(r.loop, publisher, load.Config{Deaf: true}, func(int) load.On {
		return load.On{Receipt: func(_ uint64, err error) {
			if err != nil {
				r.fail(err)
			}
		}}
	})
	if err != nil {
		return nil, err
	}
	r.loop.Do(func() { f.publisher = p[0]; f.publish() })
	return f, nil
}

// flood publishes to one room as fast as its slowest subscriber allows. It is
// used on the loop's thread only.
type flood struct {
	*round
	ahead       uint64
	subscribers int
	publisher   load.Client
	stopped     bool

	published uint64
	delivered uint64
	everybody uint64 // the newest event that all subscribers have
	// reached counts the subscribers that have an event, by its number modulo
	// ahead.
	reached []int
	body    []byte
}

func (f *flood) on(int) load.On {
	c := load.NewCounter(1)
	return load.On{Event: func(room int, body []byte) error {
		number, _, err := load.ParseBody(body)
		if err == nil {
			err = c.Add(room, number)
		}
		if err != nil {
			f.fail(err)
			return err
		}
		f.delivered++
		f.reached[number%f.ahead]++
		f.advance()
		return nil
	}}
}

// advance notes which events everybody has, and publishes what that allows.
func (f *flood) advance() {
	before := f.everybody
	for f.everybody < f.published && f.reached[(f.everybody+1)%f.ahead] == f.subscribers {
		f.everybody++
		f.reached[f.everybody%f.ahead] = 0
	}
	if f.everybody > before {
		f.publish()
	}
}

func (f *flood) publish() {
	for !f.stopped && f.published < f.everybody+f.ahead {
		f.published++
		f.body = load.AppendBody(f.body[:0], f.Body, f.published, time.Now())
		f.publisher.Publish(0, f.published, "", f.body)
	}
}
