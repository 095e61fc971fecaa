package bare

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Publishes is what a closed loop of publishers reached.
type Publishes struct {
	Events  int64   `json:"events"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50_us"`
	P99     float64 `json:"p99_us"`
}

// Publish has publishers in this process that each wait for one event to be
// durable before they put the next, for as long as d. Each has rooms of its
// own. With ids, each event has an idempotency key, as those of SDKs have.
func Publish(c *Committer, publishers, rooms, bytes int, ids bool, d time.Duration) Publishes {
	var all sync.WaitGroup
	var events atomic.Int64
	var mu sync.Mutex
	took := newHistogram()
	began := time.Now()
	for p := range publishers {
		all.Go(func() {
			mine := newHistogram()
			events.Add(publish(c, p, publishers, rooms, bytes, ids, began.Add(d), mine))
			mu.Lock()
			defer mu.Unlock()
			took.Merge(mine)
		})
	}
	all.Wait()
	return Publishes{
		Events: events.Load(), Seconds: time.Since(began).Seconds(),
		P50: float64(took.ValueAtQuantile(50)) / 1e3, P99: float64(took.ValueAtQuantile(99)) / 1e3,
	}
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(time.Minute), 3)
}

func publish(c *Committer, p, publishers, rooms, bytes int, ids bool, until time.Time, took *hdrhistogram.Histogram) (n int64) {
	text := make([]byte, bytes)
	for i := range text {
		text[i] = 'x'
	}
	own := max(1, (rooms-p+publishers-1)/publishers)
	offsets := make([]uint64, own)
	done := make(chan struct{}, 1)
	sender := fmt.Sprintf("p%d", p)
	for now := time.Now(); now.Before(until); n++ {
		i := int(n) % own
		offsets[i]++
		var id string
		if ids {
			id = fmt.Sprintf("%016x", n)
		}
		e := encode(sender, id, text, now)
		put(e, offsets[i])
		c.Put(Record{
			Room: uint64(p + i*publishers), Offset: offsets[i], Sender: sender, ClientID: id, Element: e,
			Done: func() { done <- struct{}{} },
		})
		<-done
		end := time.Now()
		_ = took.RecordValue(int64(end.Sub(now))) // beyond a minute: the run is spoilt anyway
		now = end
	}
	return n
}
