package sim

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/server"
)

// A link that is cut again and again, while 200 events a second are published:
// the client is away for at most a tenth of the time, never further behind than
// what is published in two seconds, and in the end it has everything.
func TestFlappingLink(t *testing.T) {
	if skipReason != "" {
		t.Skip(skipReason)
	}
	const (
		lasts = 40 * time.Second
		every = time.Second / 200
	)
	for _, cut := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second} {
		t.Run(fmt.Sprint("cut every ", cut), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1)
				w.node = newNode(t, w.net, server.Options{Limits: server.Limits{UserPublishes: -1, RoomPublishes: -1}})
				w.node.start()
				ann, ben := w.clients[0], w.clients[1]
				for _, c := range []*client{ann, ben} {
					if _, err := w.join(c, "busy"); err != nil {
						t.Fatal(err)
					}
					c.start()
				}
				until := time.Now().Add(lasts)
				var flapping sync.WaitGroup
				flapping.Go(func() {
					for time.Now().Before(until) {
						time.Sleep(cut)
						w.net.each(ann.name, func(k *conn) { k.cutAfter(0) })
					}
				})
				var samples, away int
				var behind uint64
				var last reprise.Receipt
				for time.Now().Before(until) {
					var err error
					if last, err = ben.current().Send(w.ctx, "busy", "x"); err != nil {
						t.Fatal(err)
					}
					samples++
					if phase := ann.current().State().Phase; phase != reprise.Live && phase != reprise.Replaying {
						away++
					}
					if held, ok := ann.Holds("busy"); ok {
						behind = max(behind, last.Offset-min(held, last.Offset))
					}
					time.Sleep(every)
				}
				flapping.Wait()
				t.Logf("%d events, away for %d of them, at most %d behind", samples, away, behind)
				if away*10 > samples {
					t.Errorf("away for %d of %d samples", away, samples)
				}
				if behind > 400 {
					t.Errorf("%d events behind", behind)
				}
				for held := uint64(0); held < last.Offset; held, _ = ann.Holds("busy") {
					if time.Since(until) > time.Minute {
						t.Fatalf("holds %d of %d a minute later", held, last.Offset)
					}
					time.Sleep(time.Second)
				}
				ann.stop()
				ben.stop()
				w.cancel()
				w.node.stop(time.Second)
			})
		})
	}
}
