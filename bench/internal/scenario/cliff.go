package scenario

import (
	"context"
	"fmt"
	"time"

	"github.com/reprise-chat/reprise/bench/internal/load"
	"github.com/reprise-chat/reprise/bench/internal/report"
)

// Cliff is a probe, a room with ten subscribers and a fixed rate, beside
// something extreme. What the others wait must not be more than twice what
// they wait without it.
func (b *Bench) Cliff(ctx context.Context) error {
	for _, c := range cliffs {
		targets := []load.Target{b.reprise()}
		if c.bare {
			targets = append(targets, load.Bare{}, load.Bare{Pebble: true})
		}
		err := b.each(ctx, "cliff", c.name, targets, func(r *round) (report.Sample, error) {
			return r.cliff(c.begin)
		})
		if err != nil {
			return err
		}
		s := b.Report.Find("cliff", c.name, "reprise")
		var ratios []float64
		for _, round := range s.Rounds {
			if before := round[report.ProbeBase]; before > 0 {
				ratios = append(ratios, round[report.Probe]/before)
			}
		}
		b.Report.AddCheck("cliff, "+c.name+": p99 of the others, of that before", ratios, 2, false)
	}
	return nil
}

// cliffs are the extremes. begin returns when it is there, and it goes on until
// the round ends. bare: what bare servers make of it says how high the cliff is.
var cliffs = []struct {
	name  string
	begin func(*round, *probe) error
	bare  bool
}{
	{name: "a user with 1,000 rooms that are busy", begin: (*round).manyRooms},
	{name: "5,000 attachments", begin: (*round).manyAttachments},
	{name: "a room with 5,000 subscribers and an event a second", begin: (*round).largeRoom, bare: true},
	{name: "an event of 64 KiB every 100 ms", begin: (*round).largeEvents},
	{name: "a reader that is stalled", begin: (*round).stalledReader},
}

func (r *round) cliff(begin func(*round, *probe) error) (report.Sample, error) {
	p, err := r.newProbe("probe", probeSubscribers)
	if err != nil {
		return nil, err
	}
	d := r.duration()
	if _, err := p.run(probeRate, d/4); err != nil { // warm
		return nil, err
	}
	before, err := p.run(probeRate, d)
	if err != nil {
		return nil, err
	}
	if err := begin(r, p); err != nil {
		return nil, err
	}
	s, err := p.run(probeRate, d)
	if err != nil {
		return nil, err
	}
	s[report.ProbeBase], s[report.Probe] = before[report.P99], s[report.P99]
	if r.crowd != nil {
		r.loop.Call(func() { s[report.Crowd] = ms(r.crowd, 99) })
	}
	return s, nil
}

// counting returns callbacks that check the order of events.
func (r *round) counting(rooms int) func(int) load.On {
	return func(int) load.On {
		c := load.NewCounter(rooms)
		return load.On{Event: func(room int, body []byte) error {
			number, at, err := load.ParseBody(body)
			if err == nil {
				err = c.Add(room, number)
			}
			if r.crowd != nil {
				record(r.crowd, time.Since(at))
			}
			return err
		}}
	}
}

// pulse has a user publish to its rooms in turn, at an interval, for ever. The
// texts have that many bytes.
func (r *round) pulse(m load.Membership, every time.Duration, size int) error {
	c, err := r.attach(r.pub, []load.Membership{m}, load.Config{Deaf: true}, func(int) load.On {
		return load.On{Receipt: func(_ uint64, err error) {
			if err != nil {
				r.fail(err)
			}
		}}
	})
	if err != nil {
		return err
	}
	var tick func(n int, at time.Time)
	tick = func(n int, at time.Time) {
		number := uint64(n/len(m.Rooms) + 1)
		c[0].Publish(n%len(m.Rooms), uint64(n), "", load.AppendBody(nil, size, number, at))
		next := at.Add(every)
		r.pub.After(next, func() { tick(n+1, next) })
	}
	r.pub.Do(func() { tick(0, time.Now()) })
	return nil
}

// manyRooms is one user in 1,000 rooms, with 200 events/s over all of them.
func (r *round) manyRooms(*probe) error {
	m := users("collector", 2, make([]string, r.size(1000))...)
	for i := range m[0].Rooms {
		m[0].Rooms[i] = fmt.Sprintf("one-of-many-%04d", i)
	}
	if err := r.setup(m); err != nil {
		return err
	}
	if _, err := r.attach(r.loop, m[:1], load.Config{ReadOnly: true}, r.counting(len(m[0].Rooms))); err != nil {
		return err
	}
	return r.pulse(m[1], 5*time.Millisecond, r.Body)
}

func (r *round) manyAttachments(*probe) error {
	m := users("idle", r.size(5000), "idle")
	if err := r.setup(m); err != nil {
		return err
	}
	if _, err := r.attach(r.loop, m, load.Config{ReadOnly: true}, r.counting(1)); err != nil {
		return err
	}
	return r.sleep(r.settle())
}

func (r *round) largeRoom(p *probe) error {
	r.crowd = histogram()
	if err := r.manyAttachments(p); err != nil {
		return err
	}
	return r.pulse(load.Membership{User: "idle0", Rooms: []string{"idle"}}, time.Second, r.Body)
}

// largeEvents come to the subscribers of a room of their own.
func (r *round) largeEvents(*probe) error {
	const largest = 64 << 10
	m := users("large", probeSubscribers, "large")
	if err := r.setup(m); err != nil {
		return err
	}
	if _, err := r.attach(r.loop, m, load.Config{ReadOnly: true}, r.counting(1)); err != nil {
		return err
	}
	return r.pulse(m[0], 100*time.Millisecond, largest)
}

// stalledReader is in the probe's room and takes nothing.
func (r *round) stalledReader(p *probe) error {
	m := users("stalled", 1, "probe")
	if err := r.setup(m); err != nil {
		return err
	}
	// The probe has published before: its numbers do not begin at 1.
	_, err := r.attach(r.loop, m, load.Config{ReadOnly: true, Stalled: true}, func(int) load.On { return load.On{} })
	if err != nil {
		return err
	}
	// Enough to use up what the protocol grants by itself.
	return p.burst(32, 16<<10)
}
