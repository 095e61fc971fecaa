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
		// Every other time the server finds its disk gone before it ends.
		powerCycle(p, d, cut%2 == 1)
		if cut%4 == 3 { // and goes again while the server recovers
			p.begin()
			time.Sleep(rand.N(150 * time.Millisecond))
			powerCycle(p, d, false)
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
//
// The server stands still at that moment, as the whole machine would. An
// fdatasync that is under way when ext4 is shut down may return as if it had
// succeeded, and what it was to keep is gone: a bare loop of writes and
// fdatasyncs met that in 15 of 300 cuts. Where the power goes nobody is left to
// see such a return. With goesOn the server is woken afterwards, to find its
// disk gone.
func powerCycle(p *process, d *disk, goesOn bool) {
	p.pause()
	d.cut()
	if goesOn {
		p.resume()
		time.Sleep(rand.N(50 * time.Millisecond))
	}
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
