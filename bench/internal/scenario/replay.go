package scenario

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-chat/reprise/bench/internal/load"
	"github.com/reprise-chat/reprise/bench/internal/report"
)

// behind is how many events a client that returns has missed.
const behind = 100

// Replay is 1,000 clients that are connected and, all at the same moment,
// resume 100 events behind: in one room and in a room each, from memory (warm)
// and after a restart with the page cache dropped (cold). The bare server
// keeps everything in memory and has neither sessions nor positions to look
// up; it does the same from there.
func (b *Bench) Replay(ctx context.Context, extra ...load.Target) error {
	clients := b.size(1000)
	for _, rooms := range []int{1, clients} {
		for _, cold := range []bool{false, true} {
			if cold && rooms == 1 && !b.Full {
				continue
			}
			name := fmt.Sprintf("%d clients, %d rooms, %s", clients, rooms, map[bool]string{false: "warm", true: "cold"}[cold])
			err := b.each(ctx, "replay", name, append([]load.Target{b.reprise(), load.Bare{}}, extra...),
				func(r *round) (report.Sample, error) {
					_, isReprise := r.target.(load.Reprise)
					return r.replay(clients, rooms, cold && isReprise)
				})
			if err != nil {
				return err
			}
			us := Key("replay", name, "reprise")
			b.Report.Ratio("replay, "+name+": events/s of bare from memory", report.Rate, us, Key("replay", name, load.Bare{}.Name()), 0.7, true)
			b.Report.Value("replay, "+name+": the slowest client's wait, in medians", report.MaxMedian, us, 0, 3, "")
		}
	}
	return nil
}

// absent sets up clients that were attached, have gone, and have missed events
// since: it returns them and where they were.
func (r *round) absent(clients, rooms int) ([]load.Membership, []load.Place, error) {
	m := make([]load.Membership, clients)
	for i := range m {
		m[i] = load.Membership{User: fmt.Sprintf("u%d", i), Rooms: []string{fmt.Sprintf("room-%04d", i%rooms)}}
	}
	if err := r.setup(m); err != nil {
		return nil, nil, err
	}
	places := make([]load.Place, clients)
	attached, err := r.attach(r.loop, m, load.Config{ReadOnly: true}, func(i int) load.On {
		return load.On{Ready: func(p load.Place) { places[i] = p }}
	})
	if err != nil {
		return nil, nil, err
	}
	r.loop.Call(func() {
		for _, c := range attached {
			c.Close()
		}
	})
	return m, places, r.fill(m[:rooms], behind)
}

func (r *round) replay(clients, rooms int, cold bool) (report.Sample, error) {
	m, places, err := r.absent(clients, rooms)
	if err != nil {
		return nil, err
	}
	if cold {
		if err := r.restartCold(); err != nil {
			return nil, err
		}
	}
	g := &group{round: r, memberships: m, places: places, hold: true}
	if err := g.connect(); err != nil {
		return nil, err
	}
	u, err := r.during(g.run)
	if err != nil {
		return nil, err
	}
	s := u.sample(uint64(clients) * behind)
	g.sample(s)
	return s, nil
}

// restartCold ends the server, drops its files from the page cache, and starts
// it again.
func (r *round) restartCold() error {
	port := r.srv.Addr.Port()
	if err := r.srv.Stop(); err != nil {
		return err
	}
	if err := dropCache(r.dir); err != nil {
		return err
	}
	return r.start(port)
}

// dropCache has the kernel forget the pages of all files below dir.
func dropCache(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path) //nolint:gosec // a folder that we made for ourselves
		if err != nil {
			return err
		}
		// Only clean pages are dropped.
		err = errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
		return errors.Join(err, f.Close())
	})
}

// group is clients that come back at once.
type group struct {
	*round
	memberships []load.Membership
	places      []load.Place
	// hold: connect first, and resume later, all at the same moment.
	hold bool

	// Owned by the loop's thread.
	clients   []load.Client
	connected int
	done      chan struct{}
	began     time.Time
	waits     []time.Duration // of those that have everything
	attempts  int
}

// connect connects all clients and waits until they hold.
func (g *group) connect() error {
	all := make(chan struct{})
	g.done = make(chan struct{})
	g.clients = make([]load.Client, len(g.memberships))
	g.loop.Call(func() {
		for i := range g.memberships {
			g.dial(i, func() {
				if g.connected++; g.connected == len(g.clients) {
					close(all)
				}
			})
		}
	})
	return g.wait("clients to connect", all)
}

func (g *group) dial(i int, connected func()) {
	c := load.NewCounter(1)
	g.attempts++
	g.clients[i] = g.target.Dial(g.loop, g.srv.Addr, load.Config{
		User: g.memberships[i].User, Rooms: g.memberships[i].Rooms, ReadOnly: true, Resume: g.places[i], Hold: g.hold,
	}, load.On{
		Connected: connected,
		Event: func(room int, body []byte) error {
			number, _, err := load.ParseBody(body)
			if err == nil {
				err = c.Add(room, number)
			}
			if err != nil {
				g.fail(err)
				return err
			}
			if c.Events == behind {
				g.caughtUp()
			}
			return nil
		},
		Lost: func(err error) { g.lost(i, err) },
	})
}

func (g *group) caughtUp() {
	g.waits = append(g.waits, time.Since(g.began))
	if len(g.waits) == len(g.clients) {
		close(g.done)
	}
}

// lost has the client come again, unless it was connected.
func (g *group) lost(i int, err error) {
	if g.hold {
		g.fail(fmt.Errorf("client %s was lost: %w", g.memberships[i].User, err))
		return
	}
	wait := 20 * time.Millisecond
	if end := (*load.EndError)(nil); errors.As(err, &end) && end.Code == codeResourceExhausted {
		wait = cmp.Or(end.Slot, time.Second)
	}
	g.loop.After(time.Now().Add(wait), func() { g.dial(i, nil) })
}

const codeResourceExhausted = 8

// run has all clients resume, and waits until each has what it missed.
func (g *group) run() error {
	g.loop.Do(func() {
		g.began = time.Now()
		for _, c := range g.clients {
			c.Attach()
		}
	})
	return g.wait("clients to catch up", g.done)
}

// sample adds how long the clients waited.
func (g *group) sample(s report.Sample) {
	h := histogram()
	g.loop.Call(func() {
		for _, w := range g.waits {
			record(h, w)
		}
	})
	quantiles(s, h)
	s[report.MaxMedian] = float64(h.Max()) / float64(max(1, h.ValueAtQuantile(50)))
	s[report.Attempts] = float64(g.attempts) / float64(len(g.memberships))
}
