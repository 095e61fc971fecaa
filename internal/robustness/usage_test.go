package robustness

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// usage is what a process holds.
type usage struct {
	heap       uint64 // bytes that are live, after a garbage collection
	rss        uint64 // bytes
	goroutines int
	fds        int
}

func (u usage) String() string {
	return fmt.Sprintf("%.1f MiB live, %.1f MiB resident, %d goroutines, %d descriptors", mib(u.heap), mib(u.rss), u.goroutines, u.fds)
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

// tolerance is how much more of each a process may hold at the end of a soak
// than at its start, with the same clients attached and nothing going on.
type tolerance usage

// within reports what of u is more than before and the tolerance.
func (u usage) within(before usage, t tolerance) (beyond []string) {
	for _, c := range []struct {
		what              string
		now, was, allowed float64
	}{
		{"MiB live", mib(u.heap), mib(before.heap), mib(t.heap)},
		{"MiB resident", mib(u.rss), mib(before.rss), mib(t.rss)},
		{"goroutines", float64(u.goroutines), float64(before.goroutines), float64(t.goroutines)},
		{"descriptors", float64(u.fds), float64(before.fds), float64(t.fds)},
	} {
		if c.now > c.was+c.allowed {
			beyond = append(beyond, fmt.Sprintf("%.1f %s, and %.1f before (%.1f more are tolerated)", c.now, c.what, c.was, c.allowed))
		}
	}
	return beyond
}

// lull is how long an idle process is watched: what it holds is the least it
// is seen with. Its runtime gives memory back in the background.
const lull = 10 * time.Second

// idle returns what the server holds while nothing is going on. Asking it for
// metrics is what makes it collect its garbage: it allocates a little each
// time.
func (p *process) idle() usage {
	p.t.Helper()
	least := usage{heap: math.MaxUint64, rss: math.MaxUint64, goroutines: math.MaxInt, fds: math.MaxInt}
	first := p.metrics()["go_gc_duration_seconds_count"]
	for end := time.Now().Add(lull); ; {
		m := p.metrics()
		least.heap = min(least.heap, uint64(m["go_memstats_heap_alloc_bytes"]))
		least.rss = min(least.rss, p.rss())
		least.goroutines = min(least.goroutines, int(m["go_goroutines"]))
		least.fds = min(least.fds, fdsOf(p.t, p.pid()))
		if m["go_gc_duration_seconds_count"] >= first+2 && time.Now().After(end) {
			return least
		}
		time.Sleep(5 * time.Millisecond) // there is no end to wait for but the clock's
	}
}

// clientsIdle returns what this process, which has the clients, holds.
func clientsIdle(t testing.TB) usage {
	t.Helper()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{heap: m.HeapAlloc, rss: rssOf(t, os.Getpid()), goroutines: goroutines(), fds: fdsOf(t, os.Getpid())}
}

// goroutines counts those of this process but toxiproxy's, which leaves some
// behind when a connection ends while its toxics are taken away.
func goroutines() (n int) {
	all := make([]byte, 16<<20)
	all = all[:runtime.Stack(all, true)]
	for stack := range strings.SplitSeq(string(all), "\n\n") {
		if !strings.Contains(stack, "github.com/Shopify/toxiproxy") {
			n++
		}
	}
	return n
}
