package scenario

import (
	"context"
	"time"

	"github.com/reprise-chat/reprise/bench/internal/load"
	"github.com/reprise-chat/reprise/bench/internal/proc"
	"github.com/reprise-chat/reprise/bench/internal/report"
)

// attackMemory is what the server may have resident under attack, in MB.
const attackMemory = 268

// Attack is a probe, as in Cliff, while a process of its own sends requests
// that are small on the wire and large when decoded, over one gRPC connection
// with 90 streams and by 100 grpc-web POSTs at once. The server has the limits
// that it has by default. The attacker runs at the lowest priority: it stands
// for machines elsewhere, which do not take the server's cores.
func (b *Bench) Attack(ctx context.Context) error {
	for _, c := range []struct{ name, token string }{
		{"memory bombs without a token", ""},
		{"memory bombs with a token", "dev:mallory"},
	} {
		targets := []load.Target{load.Reprise{Path: b.Reprise, Profiled: b.Profile != "", Limited: true}}
		err := b.each(ctx, "attack", c.name, targets, func(r *round) (report.Sample, error) { return r.attacked(c.token) })
		if err != nil {
			return err
		}
		s := b.Report.Find("attack", c.name, "reprise")
		var ratios []float64
		for _, round := range s.Rounds {
			if before := round[report.ProbeBase]; before > 0 {
				ratios = append(ratios, round[report.Probe]/before)
			}
		}
		b.Report.AddCheck("attack, "+c.name+": p99 of the others, of that before", ratios, 3, false)
		b.Report.Value("attack, "+c.name+": resident memory at most", report.RSS, Key("attack", c.name, "reprise"), 0, attackMemory, "MB")
	}
	return nil
}

func (r *round) attacked(token string) (report.Sample, error) {
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
	attacker, err := proc.Self("attacker", "--grpc", r.srv.Addr.String(), "--http", r.srv.HTTP, "--token", token)
	if err != nil {
		return nil, err
	}
	defer attacker.Kill()
	watched, stop := r.watchMemory()
	if err := r.sleep(d / 2); err != nil { // until the attack is under way
		stop()
		return nil, err
	}
	s, err := p.run(probeRate, d)
	stop()
	most := <-watched
	if err != nil {
		return nil, err
	}
	if err := attacker.Alive(); err != nil {
		return nil, err
	}
	s[report.ProbeBase], s[report.Probe], s[report.RSS] = before[report.P99], s[report.P99], most
	return s, nil
}

// watchMemory follows how much memory the server has resident until it is
// stopped, and then gives the most of it, in MB.
func (r *round) watchMemory() (most <-chan float64, stop func()) {
	out, done := make(chan float64, 1), make(chan struct{})
	go func() {
		var peak int64
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				out <- float64(peak) / 1e6
				return
			case <-tick.C:
				if rss, err := r.srv.RSS(); err == nil {
					peak = max(peak, rss)
				}
			}
		}
	}()
	return out, func() { close(done) }
}
