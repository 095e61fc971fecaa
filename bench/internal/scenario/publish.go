package scenario

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/reprise-chat/reprise/bench/internal/bare"
	"github.com/reprise-chat/reprise/bench/internal/load"
	"github.com/reprise-chat/reprise/bench/internal/report"
)

// Publish is many publishers that each wait for one event to be acknowledged
// before they send the next, over many rooms. Each publisher is a user on a
// connection of its own, with rooms of its own, and takes no events.
//
// Three things are compared, so that it can be seen where the time goes:
//
//   - Reprise and a bare grpc-go server with a bare Pebble committer behind it,
//     over the same wire: what validation, membership, deduplication, order and
//     fan-out cost. This has the budget.
//   - bare Pebble and a plain file with the publishers inside of the process:
//     the disk's limit, without the wire.
//
// What the store costs over bare Pebble, both in process, is the benchmark in
// server/internal/store/pebble (BenchmarkGroupCommit, BenchmarkBarePebble).
func (b *Bench) Publish(ctx context.Context, extra ...load.Target) error {
	publishers, rooms := b.size(512), b.size(1000)
	wire := append([]load.Target{b.reprise(), load.Bare{Pebble: true}}, extra...)
	for _, ids := range []bool{true, false} {
		name := fmt.Sprintf("%d publishers, %d rooms", publishers, rooms)
		if !ids {
			if !b.Full {
				continue
			}
			name += ", no client_id"
		}
		err := b.inTurn(func(b *Bench) error {
			err := b.each(ctx, "publish", name, wire, func(r *round) (report.Sample, error) {
				return r.publish(publishers, rooms, ids)
			})
			if err != nil {
				return err
			}
			return b.inProcess(ctx, name, publishers, rooms, ids)
		})
		if err != nil {
			return err
		}
		us := Key("publish", name, "reprise")
		b.Report.Ratio("publish, "+name+": events/s of bare Pebble behind bare grpc-go", report.Rate,
			us, Key("publish", name, load.Bare{Pebble: true}.Name()), 0.8, true)
		b.Report.Ratio("publish, "+name+": events/s of bare Pebble without a wire", report.Rate,
			us, Key("publish", name, "pebble, in process"), 0.8, true)
	}
	return nil
}

// inProcess measures the disk's limits.
func (b *Bench) inProcess(ctx context.Context, name string, publishers, rooms int, ids bool) error {
	for _, what := range []string{"pebble", "file"} {
		p, err := b.limit(ctx, what, publishers, rooms, ids)
		if err != nil {
			return err
		}
		b.Report.Add("publish", name, what+", in process", limitSample(p))
	}
	return nil
}

func limitSample(p bare.Publishes) report.Sample {
	return report.Sample{report.Rate: float64(p.Events) / p.Seconds, report.P50: p.P50 / 1e3, report.P99: p.P99 / 1e3}
}

func (r *round) publish(publishers, rooms int, ids bool) (report.Sample, error) {
	m := make([]load.Membership, publishers)
	for p := range m {
		m[p].User = fmt.Sprintf("p%d", p)
		for room := p; room < max(rooms, publishers); room += publishers {
			m[p].Rooms = append(m[p].Rooms, fmt.Sprintf("room-%04d", room%rooms))
		}
	}
	if err := r.setup(m); err != nil {
		return nil, err
	}
	l := &closedLoop{round: r, memberships: m, ids: ids, took: histogram()}
	if err := l.attach(); err != nil {
		return nil, err
	}
	if err := r.sleep(r.duration() / 4); err != nil {
		return nil, err
	}
	var from, to uint64
	u, err := r.during(func() error {
		r.loop.Call(func() { l.took.Reset(); from = l.acknowledged })
		defer r.loop.Call(func() { to = l.acknowledged })
		return r.sleep(r.duration())
	})
	if err != nil {
		return nil, err
	}
	s := u.sample(to - from)
	r.loop.Call(func() { l.stopped = true; quantiles(s, l.took) })
	return s, nil
}

// closedLoop is publishers with one event each under way. It is used on the
// loop's thread only.
type closedLoop struct {
	*round
	memberships  []load.Membership
	ids, stopped bool
	acknowledged uint64
	took         *hdrhistogram.Histogram
	publishers   []load.Client
	body         []byte
}

func (l *closedLoop) attach() (err error) {
	states := make([]struct {
		number uint64
		sent   time.Time
	}, len(l.memberships))
	publish := func(i int) {
		s := &states[i]
		s.number++
		s.sent = time.Now()
		var id string
		if l.ids {
			id = fmt.Sprintf("%016x", s.number)
		}
		l.body = load.AppendBody(l.body[:0], l.Body, s.number, s.sent)
		l.publishers[i].Publish(int(s.number)%len(l.memberships[i].Rooms), s.number, id, l.body)
	}
	l.publishers, err = l.round.attach(l.loop, l.memberships, load.Config{Deaf: true}, func(i int) load.On {
		return load.On{Receipt: func(number uint64, err error) {
			s := &states[i]
			if err == nil && number != s.number {
				err = fmt.Errorf("a receipt of event %d while %d is under way", number, s.number)
			}
			if err != nil {
				l.fail(err)
				return
			}
			record(l.took, time.Since(s.sent))
			l.acknowledged++
			if !l.stopped {
				publish(i)
			}
		}}
	})
	if err != nil {
		return err
	}
	l.loop.Do(func() {
		for i := range l.publishers {
			publish(i)
		}
	})
	return nil
}

// fill publishes events to rooms as fast as it can, many at once from each
// publisher, and waits until they are acknowledged. Publisher i publishes
// that many to each of its rooms, numbered from 1.
func (r *round) fill(m []load.Membership, each int) error {
	const atOnce = 64 // enough to fill batches
	left := 0
	for i := range m {
		left += each * len(m[i].Rooms)
	}
	if left == 0 {
		return nil
	}
	patience := waitLimit + time.Duration(left)*100*time.Microsecond
	done := make(chan struct{})
	var clients []load.Client
	sent := make([]int, len(m))
	body := make([]byte, 0, r.Body)
	publish := func(i int) {
		rooms := len(m[i].Rooms)
		if sent[i] == each*rooms {
			return
		}
		number := uint64(sent[i]/rooms + 1)
		body = load.AppendBody(body[:0], r.Body, number, time.Now())
		clients[i].Publish(sent[i]%rooms, uint64(sent[i]), "", body)
		sent[i]++
	}
	clients, err := r.attach(r.pub, m, load.Config{Deaf: true}, func(i int) load.On {
		return load.On{Receipt: func(number uint64, err error) {
			if err != nil {
				r.fail(fmt.Errorf("event %s of %s: %w", strconv.FormatUint(number, 10), m[i].User, err))
				return
			}
			if left--; left == 0 {
				close(done)
			}
			publish(i)
		}}
	})
	if err != nil {
		return err
	}
	r.pub.Do(func() {
		for i := range clients {
			for range atOnce {
				publish(i)
			}
		}
	})
	err = r.waitFor(patience, "events to be stored", done)
	r.pub.Call(func() {
		for _, c := range clients {
			c.Close()
		}
	})
	return err
}
