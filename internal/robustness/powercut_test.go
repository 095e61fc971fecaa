package robustness

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestP1_PowerCuts cuts the power of the disk under the real server, under
// load, and goes on with what the disk has: what was acknowledged is there, and
// nothing that nobody published.
func TestP1_PowerCuts(t *testing.T) {
	needFaults(t)
	t.Parallel()
	cuts := times(t, "REPRISE_POWERCUTS", 5)
	d := newDisk(t, 4<<30, os.Getenv("REPRISE_POWERCUTS") != "") // a sparse file
	p := newProcess(t, tags())
	p.dir = filepath.Join(d.dir, "data")
	p.start()
	l := newLoad(t, p, loadConfig{every: 15 * time.Millisecond})
	if tags() != "" {
		// A broken server is to lose events, not the rooms themselves.
		p.stop()
		p.start()
		d.sync()
	}
	var starts, recoveries []time.Duration
	for cut := range cuts {
		l.talk()
		time.Sleep(rand.N(700 * time.Millisecond)) // the moment is what is random
		// Half of the time the server stands still when the power goes, as the
		// whole machine would; else it finds its disk gone before it ends.
		if cut%2 == 0 {
			p.pause()
		}
		powerCycle(p, d)
		if cut%4 == 3 { // and goes again while the server recovers
			p.begin()
			time.Sleep(rand.N(150 * time.Millisecond))
			powerCycle(p, d)
		}
		if out, err := p.run("check", p.dir); err != nil {
			t.Errorf("check after cut %d: %v\n%s", cut, err, out)
		}
		mounted := time.Now()
		p.start()
		starts = append(starts, time.Since(mounted))
		recoveries = append(recoveries, l.recovered(mounted))
		if (cut+1)%killsAWindow == 0 {
			l.check()
		}
	}
	slices.Sort(starts)
	slices.Sort(recoveries)
	t.Logf("serving again after %v in the middle and %v at most, everybody caught up after %v and %v",
		starts[len(starts)/2], starts[len(starts)-1], recoveries[len(recoveries)/2], recoveries[len(recoveries)-1])
	l.finish("power of the disk cut, every fourth time again while the server recovers", cuts)
}

// powerCycle cuts the power and gives it back; the server does not survive it.
func powerCycle(p *process, d *disk) {
	d.cut()
	p.kill()
	d.unmount()
	d.mount()
}

// TestP1_PowerCutsCanFail: a server that acknowledges before it syncs is
// caught, and so is one that believes what is in the system's memory to be on
// disk, which a mere kill would not show.
func TestP1_PowerCutsCanFail(t *testing.T) {
	needFaults(t)
	t.Parallel()
	for _, rule := range []string{"ack-before-sync", "sync-nothing"} {
		t.Run(rule, func(t *testing.T) {
			mustNotice(t, rule, "TestP1_PowerCuts", "P1 lost", "REPRISE_POWERCUTS=2")
		})
	}
}
