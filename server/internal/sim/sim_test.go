package sim

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/internal/history"
	"github.com/reprise-chat/reprise/internal/history/witness"
	"github.com/reprise-chat/reprise/server"
)

var (
	seeds  = flag.Int("seeds", 0, "run this many seeds, from -seed on, instead of the usual ones")
	first  = flag.Uint64("seed", 1, "the first seed")
	fixed  = flag.Int("fixed", 3, "how many fixed seeds to run")
	random = flag.Duration("random", time.Second, "how long to try random seeds besides")
)

// skipReason is set where the simulation cannot run.
var skipReason string

// TestSim runs a fixed set of seeds, then new ones for a while.
func TestSim(t *testing.T) {
	if skipReason != "" {
		t.Skip(skipReason)
	}
	if *seeds > 0 {
		for i := range *seeds {
			run(t, *first+uint64(i))
			if (i+1)%100 == 0 {
				t.Logf("%d seeds", i+1)
				fmt.Fprintf(os.Stderr, "sim: %d of %d seeds\n", i+1, *seeds)
			}
		}
		return
	}
	for seed := range *fixed {
		run(t, uint64(seed+1))
	}
	tried := 0
	for began := time.Now(); time.Since(began) < *random; tried++ {
		run(t, rand.Uint64())
	}
	t.Logf("%d fixed and %d random seeds", *fixed, tried)
}

// run runs one seed in a bubble, as a test of its own.
func run(t *testing.T, seed uint64) {
	t.Helper()
	t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { newWorld(t, seed).run() })
	})
}

// world is one simulated run.
type world struct {
	t           *testing.T
	seed        uint64
	random      *rand.Rand
	trace       *history.Trace
	net         *network
	node        *node
	clients     []*client
	rooms       []string
	replayLimit uint32
	ctx         context.Context
	cancel      context.CancelFunc
	publishers  sync.WaitGroup

	stepsMu sync.Mutex
	steps   []string
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 1)), trace: history.NewTrace(nil), net: newNetwork(),
		rooms: []string{"busy", "quiet", "other"},
	}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	o := server.Options{TrimEvery: 5 * time.Second, Heartbeat: 20 * time.Second}
	// The hours that jump would remove a room that everybody has just left, and
	// with it what was acknowledged there.
	o.EmptyRooms = -1
	o.Limits.UserPublishes, o.Limits.RoomPublishes, o.Limits.UserCreates, o.Limits.Attaches = -1, -1, -1, -1
	if w.random.IntN(3) == 0 {
		o.Retention = server.Retention{MaxEvents: 30}
	}
	if w.random.IntN(3) == 0 {
		w.replayLimit = 10
	}
	w.node = newNode(t, w.net, o)
	for _, name := range []string{"ann", "ben", "cat"} {
		w.clients = append(w.clients, newClient(w, name))
	}
	return w
}

func (w *world) note(format string, args ...any) {
	w.stepsMu.Lock()
	defer w.stepsMu.Unlock()
	w.steps = append(w.steps, fmt.Sprintf(format, args...))
}

func (w *world) run() {
	w.node.start()
	for _, c := range w.clients {
		for _, room := range w.rooms {
			if _, err := w.join(c, room); err != nil {
				w.t.Fatal(err)
			}
		}
		c.start()
	}
	for range 15 + w.random.IntN(25) {
		w.step()
	}
	w.heal()
	w.finish()
}

// join makes c a member by a client of its own: another device.
func (w *world) join(c *client, room string) (*reprise.Room, error) {
	return w.device(c, func(ctx context.Context, sdk *reprise.Client) (*reprise.Room, error) { return sdk.Join(ctx, room, 0) })
}

// device calls do with a new client of the same user.
func (w *world) device(c *client, do func(context.Context, *reprise.Client) (*reprise.Room, error)) (*reprise.Room, error) {
	other := newClient(w, c.name)
	sdk, err := other.cur.connectOnly()
	if err != nil {
		return nil, err
	}
	defer sdk.Close()
	ctx, cancel := context.WithTimeout(w.ctx, 5*time.Minute)
	defer cancel()
	return do(ctx, sdk)
}

// step lets something happen, mostly something bad.
func (w *world) step() {
	c := w.clients[w.random.IntN(len(w.clients))]
	switch w.random.IntN(16) {
	case 0, 1, 2:
		w.burst(c)
	case 3:
		n := w.random.IntN(3000)
		w.note("cut %s after %d bytes", c.name, n)
		w.net.each(c.name, func(k *conn) { k.cutAfter(n) })
	case 4:
		w.note("half-open %s", c.name)
		w.net.each(c.name, (*conn).darken)
	case 5:
		w.note("crash")
		w.node.crash(w.random)
		w.sleep(5000)
		w.node.start()
	case 6:
		drain := time.Duration(w.random.IntN(8000)) * time.Millisecond
		w.note("drain for %v", drain)
		w.node.stop(drain)
		w.sleep(2000)
		w.node.start()
	case 7:
		d := time.Duration(w.random.IntN(120)) * time.Second
		w.note("stall %s for %v", c.name, d)
		c.mu.Lock()
		c.stall = d
		c.mu.Unlock()
	case 8:
		d := time.Duration(w.random.IntN(10*3600)) * time.Second
		w.note("%v pass", d)
		time.Sleep(d)
	case 9:
		w.note("restart %s", c.name)
		c.stop()
		w.sleep(60_000)
		c.start()
	case 10:
		w.comeAndGo(c)
	case 11:
		w.note("all cut")
		w.net.each("", func(k *conn) { k.cutAfter(0) })
	case 12:
		w.takeOver(c)
	case 13:
		w.fullDisk(c)
	case 14:
		w.badRoom(c)
	case 15:
		n := 1 + w.random.IntN(3)
		w.note("%d writes refused at their turn", n)
		w.node.disk.refuse(n)
		w.burst(c)
	}
	w.sleep(3000)
}

// fullDisk crosses the disk's reserve while a client publishes, and perhaps while
// everybody has to resume.
func (w *world) fullDisk(c *client) {
	w.note("the disk is full")
	w.burst(c)
	w.node.fill(true)
	w.burst(c)
	w.sleep(5000)
	if w.random.IntN(2) == 0 {
		w.note("all cut")
		w.net.each("", func(k *conn) { k.cutAfter(0) })
		w.sleep(10_000)
	}
	w.note("the disk has space")
	w.node.fill(false)
}

// badRoom has a room that cannot be read for a while, from before the server
// starts or while it serves.
func (w *world) badRoom(c *client) {
	room := w.rooms[w.random.IntN(len(w.rooms))]
	w.note("%s cannot be read", room)
	w.node.disk.set(room, true)
	if w.random.IntN(2) == 0 {
		w.note("drain")
		w.node.stop(time.Second)
		w.node.start()
	} else {
		w.net.each("", func(k *conn) { k.cutAfter(0) })
	}
	w.burst(c)
	w.sleep(20_000)
	w.note("%s can be read", room)
	w.node.disk.set(room, false)
}

// takeOver has two holders of a session at once: what the first one says, and
// what it is told, arrives when the second one has the session.
func (w *world) takeOver(c *client) {
	w.note("a copy of %s takes over", c.holder().Name())
	var thaw []func()
	w.net.each(c.name, func(k *conn) { thaw = append(thaw, k.freeze()) })
	w.burst(c)
	w.sleep(100) // what it sends is on its way
	first, second := c.copied()
	w.sleep(30_000)
	w.note("%s wakes up", first.Name())
	for _, f := range thaw {
		f()
	}
	w.sleep(10_000)
	c.keep(first, second)
}

// burst has a client publish several events at once.
func (w *world) burst(c *client) {
	n, room := 1+w.random.IntN(15), w.rooms[w.random.IntN(2)]
	w.note("%s publishes %d to %s", c.name, n, room)
	for range n {
		w.publishers.Go(func() { c.publish(room) })
	}
}

// comeAndGo leaves and joins a room from another device, while the client may
// be away.
func (w *world) comeAndGo(c *client) {
	w.note("%s leaves and joins other", c.name)
	_, err := w.device(c, func(ctx context.Context, sdk *reprise.Client) (*reprise.Room, error) {
		return nil, sdk.Leave(ctx, "other")
	})
	if err == nil && w.random.IntN(2) == 0 {
		w.sleep(2000)
	}
	if _, err := w.join(c, "other"); err != nil {
		w.t.Errorf("%s could not join again: %v", c.name, err)
	}
}

func (w *world) sleep(most int) {
	time.Sleep(time.Duration(w.random.IntN(most)) * time.Millisecond)
}

// heal has nothing go wrong any more, and waits until everybody has
// everything.
func (w *world) heal() {
	w.note("heal")
	w.net.each("", func(k *conn) { k.cutAfter(0) })
	w.publishers.Wait()
	limit := time.Now().Add(30 * time.Minute)
	for _, c := range w.clients {
		for _, room := range w.rooms {
			for {
				head, err := w.head(c, room)
				held, known := c.holder().Holds(room)
				// A copy is not told of a room in which nothing was new to it.
				if err == nil && (held == head || !known && c.copies > 0) {
					break
				}
				if time.Now().After(limit) {
					w.fail("%s holds %d of %s, whose head is %d (%v); %v", c.name, held, room, head, err, c.current().State())
					return
				}
				time.Sleep(5 * time.Second)
			}
		}
	}
}

func (w *world) head(c *client, room string) (head uint64, err error) {
	_, err = w.device(c, func(ctx context.Context, sdk *reprise.Client) (*reprise.Room, error) {
		r, err := sdk.GetRoom(ctx, room)
		head = r.GetHead()
		return r, err
	})
	return head, err
}

// finish reads the logs, stops everything and checks the history.
func (w *world) finish() {
	for _, room := range w.rooms {
		w.readAll(room)
	}
	for _, c := range w.clients {
		c.stop()
	}
	w.cancel()
	w.publishers.Wait()
	w.node.stop(time.Second)
	records := w.trace.Records()
	for _, v := range append(history.Check(records), history.Linearizable(records, time.Minute)...) {
		w.fail("%v", v)
	}
}

func (w *world) readAll(room string) {
	_, err := w.device(w.clients[0], func(ctx context.Context, sdk *reprise.Client) (*reprise.Room, error) {
		log, _, err := witness.ReadLog(ctx, sdk, room, 0)
		for _, r := range log {
			w.trace.Add(r)
		}
		return nil, err
	})
	if err != nil {
		w.fail("the final log of %s: %v", room, err)
	}
}

// fail reports what is wrong with the steps that led there and keeps the trace.
func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Errorf("seed %d: %s", w.seed, fmt.Sprintf(format, args...))
	if w.steps == nil {
		return // reported already
	}
	path := filepath.Join(os.TempDir(), fmt.Sprintf("reprise-sim-%d.jsonl", w.seed))
	var b strings.Builder
	for _, r := range w.trace.Records() {
		fmt.Fprintln(&b, r)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		path = err.Error()
	}
	w.t.Errorf("steps:\n  %s\ntrace: %s", strings.Join(w.steps, "\n  "), path)
	w.steps = nil
}
