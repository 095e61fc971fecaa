package robustness

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	reprise "github.com/reprise-chat/reprise/client"
)

const (
	// soakWindow is how much of a soak is checked together. Its trace is all
	// that is kept, so that a soak of days takes no more memory than one of
	// minutes.
	soakWindow = 45 * time.Second
	// soakSays is how often a soak says how far it is.
	soakSays = 15 * time.Second
	// soakStalls bounds the stalled readers at a time.
	soakStalls = 6
	// soakClients are the SDK clients.
	soakClients = 8
)

// What a process may hold more at the end of a soak than at its start. The
// server's store fills, outside the Go heap, a cache of 64 MiB and two
// memtables of 32 MiB, which are empty when it starts, and has more tables open.
var (
	serverTolerance = tolerance{heap: 8 << 20, rss: 160 << 20, goroutines: 8, fds: 40}
	clientTolerance = tolerance{heap: 4 << 20, rss: 32 << 20, goroutines: 8, fds: 16}
)

// acts are what happens to the server and its clients in a soak, each as often
// as its weight says. An end is one of the server's process.
var acts = []struct {
	name   string
	weight int
	end    bool
	do     func(*soak)
}{
	{name: "kills", weight: 4, end: true, do: (*soak).killed},
	{name: "restarts", weight: 1, end: true, do: (*soak).restarted},
	{name: "cuts", weight: 6, do: (*soak).cutOne},
	{name: "cuts of all", weight: 1, do: (*soak).cutAll},
	{name: "bad networks", weight: 2, do: (*soak).badNetwork},
	{name: "stalled readers", weight: 3, do: (*soak).stalledReader},
	{name: "slow handlers", weight: 2, do: (*soak).slowHandler},
	{name: "backups", weight: 1, do: (*soak).backedUp},
}

// soak is everything at once, for long.
type soak struct {
	*process
	network *network
	l       *load
	slow    [soakClients]atomic.Int64 // nanoseconds that a handler takes
	stalls  []*stalled
	// somebodySlow: a client's handler takes its time.
	somebodySlow bool

	length  time.Duration
	began   time.Time
	said    time.Time
	checked time.Time
	windows int
	done    map[string]int // acts, by name
}

// TestSoak mixes all faults for REPRISE_SOAK, and requires that everything is
// as it was at the start. What the server's process held at its start is known
// only of one that lives to the end: in the last two fifths nobody ends it.
func TestSoak(t *testing.T) {
	setting := os.Getenv("REPRISE_SOAK")
	if setting == "" {
		t.Skip("takes long: `make soak` runs it")
	}
	length, err := time.ParseDuration(setting)
	if err != nil || length < time.Minute {
		t.Fatalf("REPRISE_SOAK=%q: want a duration of a minute or more", setting)
	}
	s := newSoak(t, length)
	clientsBefore := s.warm(true)
	s.run(s.began.Add(length*3/5), true)

	s.quiet()
	s.stop()
	s.start()
	s.l.talk()
	s.l.recovered(time.Now())
	s.warm(false)
	serverBefore := s.idle()
	s.run(s.began.Add(length), false)

	s.quiet()
	serverAfter, clientsAfter := s.idle(), clientsIdle(t)
	s.table(map[string][2]usage{"server": {serverBefore, serverAfter}, "clients": {clientsBefore, clientsAfter}})
	for _, beyond := range serverAfter.within(serverBefore, serverTolerance) {
		t.Errorf("the server holds more than at its start: %s", beyond)
	}
	for _, beyond := range clientsAfter.within(clientsBefore, clientTolerance) {
		t.Errorf("the clients hold more than at their start: %s", beyond)
	}
	total := 0
	for _, n := range s.done {
		total += n
	}
	s.l.finish(fmt.Sprintf("all of them mixed, for %v", length), total)
}

func newSoak(t *testing.T, length time.Duration) *soak {
	s := &soak{process: newProcess(t, ""), length: length, began: time.Now(), done: make(map[string]int)}
	s.args = []string{"--drain-timeout", "2s"}
	s.start()
	s.network = newNetwork(t, s.grpc)
	s.l = newLoad(t, s.process, loadConfig{
		clients:   soakClients,
		addresses: func(int) []string { return []string{s.network.address()} },
		handle: func(client int, _ reprise.Event) {
			time.Sleep(time.Duration(s.slow[client].Load()))
		},
	})
	t.Cleanup(s.unstall)
	return s
}

// warm has everything done once that is done for the first time only, and
// returns what the clients hold when it is quiet after that.
func (s *soak) warm(cut bool) usage {
	s.t.Helper()
	s.l.talk()
	s.l.waitAcknowledged(500)
	if cut {
		s.cutAll()
		s.l.recovered(time.Now())
	}
	s.quiet()
	return clientsIdle(s.t)
}

// quiet ends what is going on and checks the window.
func (s *soak) quiet() {
	s.t.Helper()
	s.unstall()
	s.check()
}

// check ends a window. Those who are slow would take as long as it took.
func (s *soak) check() {
	s.t.Helper()
	s.slowest(0)
	s.l.check()
	s.windows++
	s.checked = time.Now()
}

// run lets things happen until the end of a part of the soak.
func (s *soak) run(end time.Time, ends bool) {
	s.t.Helper()
	for time.Now().Before(end) && !s.t.(*testing.T).Failed() { //nolint:forcetypeassert // newSoak was given one
		s.l.talk()
		s.act(ends)
		time.Sleep(rand.N(1500 * time.Millisecond)) // the moment is what is random
		if time.Since(s.said) > soakSays {
			s.say()
		}
		if time.Since(s.checked) > soakWindow {
			s.check()
		}
	}
}

// act does one of the acts.
func (s *soak) act(ends bool) {
	total := 0
	for _, a := range acts {
		if ends || !a.end {
			total += a.weight
		}
	}
	n := rand.IntN(total)
	for _, a := range acts {
		if !ends && a.end {
			continue
		}
		if n -= a.weight; n < 0 {
			a.do(s)
			s.done[a.name]++
			return
		}
	}
}

func (s *soak) killed() {
	s.kill()
	s.start()
	if rand.IntN(2) == 0 {
		s.recovered()
	}
}

func (s *soak) restarted() {
	s.stop()
	s.start()
	s.recovered()
}

func (s *soak) cutOne() { s.l.cut(rand.IntN(soakClients)) }

func (s *soak) cutAll() {
	for i := range soakClients {
		s.l.cut(i)
	}
}

// badNetwork is slow, or cuts frames in the middle, for a while.
func (s *soak) badNetwork() {
	if rand.IntN(2) == 0 {
		s.network.ail("latency", 1, map[string]int{"latency": 60, "jitter": 50})
	} else {
		s.network.ail("limit_data", 1, map[string]int{"bytes": 1 + rand.IntN(20_000)})
	}
	time.Sleep(rand.N(spell))
	s.network.heal()
	s.recovered()
}

// stalledReader begins one; the oldest makes room.
func (s *soak) stalledReader() {
	s.t.Helper()
	n := s.done["stalled readers"]
	reader, err := newStalled(s.grpc, []string{"connect", "tail"}[n%2], s.l.rooms[n%len(s.l.rooms)], n%(2*soakStalls))
	if err != nil {
		s.t.Errorf("a stalled reader cannot begin: %v", err)
		return
	}
	if s.stalls = append(s.stalls, reader); len(s.stalls) > soakStalls {
		s.stalls[0].close()
		s.stalls = s.stalls[1:]
	}
}

func (s *soak) unstall() {
	for _, reader := range s.stalls {
		reader.close()
	}
	s.stalls = nil
}

// slowHandler has one client take longer for an event than it takes to come,
// or nobody; the others are as fast as ever.
func (s *soak) slowHandler() { s.slowest(max(0, rand.N(40*time.Millisecond)-10*time.Millisecond)) }

func (s *soak) slowest(d time.Duration) {
	for i := range s.slow {
		s.slow[i].Store(0)
	}
	s.slow[rand.IntN(soakClients)].Store(int64(d))
	s.somebodySlow = d > 0
}

// recovered waits until everybody is back, if nobody takes their time.
func (s *soak) recovered() {
	s.t.Helper()
	if !s.somebodySlow {
		s.l.recovered(time.Now())
	}
}

// backedUp makes a backup, checks it and throws it away.
func (s *soak) backedUp() {
	s.t.Helper()
	dest := filepath.Join(filepath.Dir(s.dir), "backup")
	for _, command := range [][]string{{"backup", "--dir", s.dir, dest}, {"check", dest}} {
		if out, err := s.process.run(command...); err != nil {
			s.t.Errorf("%v: %v\n%s", command, err, out)
		}
	}
	if err := os.RemoveAll(dest); err != nil {
		s.t.Error(err)
	}
}

// say prints how far the soak is.
func (s *soak) say() {
	s.said = time.Now()
	r := s.l.result("", 0)
	fmt.Fprintf(os.Stderr, "soak: %v of %v: %s; %d acknowledged, %d delivered (%d replayed), %d resumes; %d windows checked, %d violations; server %.0f MiB, %d goroutines\n",
		time.Since(s.began).Round(time.Second), s.length, s.acted(), r.Acknowledged, r.Delivered, r.Replayed, r.Resumes,
		s.windows, r.Violations, mib(s.rss()), s.goroutines())
}

func (s *soak) acted() string {
	var parts []string
	for _, a := range acts {
		parts = append(parts, fmt.Sprintf("%d %s", s.done[a.name], a.name))
	}
	return strings.Join(parts, ", ")
}

// table prints the figures at the end.
func (s *soak) table(held map[string][2]usage) {
	r := s.l.result("", 0)
	var b strings.Builder
	row := func(what string, value any) { fmt.Fprintf(&b, "  %-24s %v\n", what, value) }
	row("time", time.Since(s.began).Round(time.Second))
	for _, a := range acts {
		row(a.name, s.done[a.name])
	}
	row("events acknowledged", r.Acknowledged)
	row("events delivered", r.Delivered)
	row("of them replayed", r.Replayed)
	row("resumes", r.Resumes)
	row("windows checked", s.windows)
	row("lost, repeated", fmt.Sprint(r.Lost, ", ", r.Repeated))
	row("slowest recovery", fmt.Sprint(r.SlowestRecoveryMS, " ms"))
	for _, who := range []string{"server", "clients"} {
		row(who+" at the start", held[who][0])
		row(who+" at the end", held[who][1])
	}
	fmt.Fprintf(os.Stderr, "soak:\n%s", b.String())
}
