package storetest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// testClose closes with appends outstanding.
func testClose(t *testing.T, h Harness) {
	r := newRoom(t, h.Store, "r")
	const n = 500
	done := make(chan error, n)
	for i := range uint64(n) {
		e := r.eventAt(i+2, "alice", "", "text")
		r.events = append(r.events, e.Encoded)
		check(t, r.log.Append(&store.Append{Expect: i + 1, Events: []store.Event{e}, Done: func(err error) { done <- err }}))
	}
	s := h.Reopen()
	if len(done) != n {
		t.Fatalf("Close returned after %d of %d Dones", len(done), n)
	}
	for range n {
		check(t, <-done)
	}
	r.reopen(s)
	r.check(1)
}

func testPowerLoss(t *testing.T, h Harness) {
	if h.Crash == nil {
		t.Skip("this engine's tests cannot cut the power")
	}
	if lost := CrashLoss(t, h, 6); lost != 0 {
		t.Fatalf("%d acknowledged or visible writes were lost", lost)
	}
}

// CrashLoss cuts the power `cycles` times under load and returns how many writes
// were gone that had been acknowledged or seen: 0 for an engine that keeps its
// promise. It checks besides that what is left is sound.
func CrashLoss(t testing.TB, h Harness, cycles int) (lost int) {
	s := h.Store
	rooms := make([]*crashRoom, 2)
	for i := range rooms {
		rooms[i] = &crashRoom{name: fmt.Sprint("room ", i), session: fmt.Sprint("s_", i)}
	}
	for range cycles {
		quit := make(chan struct{})
		var wg sync.WaitGroup
		for _, c := range rooms {
			c.open(t, s)
			wg.Go(func() { c.write(t, s, quit) })
			wg.Go(func() { c.watch(t, quit) })
		}
		for _, c := range rooms {
			c.waitFor(50)
		}
		for _, c := range rooms {
			c.freeze()
		}
		s = h.Crash()
		close(quit)
		wg.Wait()
		for _, c := range rooms {
			lost += c.verify(t, s)
		}
	}
	return lost
}

// crashRoom is a room and a session that are written to when the power goes.
type crashRoom struct {
	name, session string
	log           store.Log
	base          uint64 // head at the start of the cycle

	mu sync.Mutex
	// acked, seen and attach are the newest things known before the cut.
	acked, seen, attach uint64
	frozen              bool
	grown               chan struct{} // receives after each acknowledgement
}

func (c *crashRoom) open(t testing.TB, s store.Store) {
	r := openRoom(t, s, c.name)
	c.log, c.base = r.log, r.log.State().Head
	c.acked, c.seen, c.frozen = c.base, c.base, false
	c.grown = make(chan struct{}, 1)
}

// note raises *known unless the power is going.
func (c *crashRoom) note(known *uint64, n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.frozen && n > *known {
		*known = n
	}
	select {
	case c.grown <- struct{}{}:
	default:
	}
}

func (c *crashRoom) freeze() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = true
}

// waitFor returns when n appends of this cycle were acknowledged.
func (c *crashRoom) waitFor(n uint64) {
	for {
		c.mu.Lock()
		enough := c.acked >= c.base+n
		c.mu.Unlock()
		if enough {
			return
		}
		<-c.grown
	}
}

// write appends, with up to 32 outstanding, and now and then raises the attach
// number of the room's session.
func (c *crashRoom) write(t testing.TB, s store.Store, quit chan struct{}) {
	r := &room{tb: t, name: c.name, log: c.log}
	slots := make(chan struct{}, 32)
	for n := c.base + 1; ; n++ {
		select {
		case <-quit:
			for range cap(slots) {
				slots <- struct{}{}
			}
			return
		case slots <- struct{}{}:
		}
		id := fmt.Sprint("c", n)
		a := &store.Append{Expect: n - 1, Events: []store.Event{r.eventAt(n, "alice", id, "text")}}
		if n == 1 {
			a.Create = &store.Meta{Name: c.name}
		}
		a.Done = func(err error) {
			if err == nil {
				c.note(&c.acked, n)
			}
			<-slots
		}
		if err := c.log.Append(a); err != nil {
			a.Done(err) // the power was cut
		}
		if n%64 == 0 {
			c.attachOnce(t, s)
		}
	}
}

func (c *crashRoom) attachOnce(t testing.TB, s store.Store) {
	n, err := c.attachNumber(t, s)
	if err == nil {
		c.note(&c.attach, n)
	}
}

func (c *crashRoom) attachNumber(t testing.TB, s store.Store) (uint64, error) {
	if _, err := s.Session(t.Context(), c.session); err != nil {
		return 1, s.PutSession(t.Context(), sessionOf(c.session, "alice", epoch), nil)
	}
	return raise(t.Context(), s, c.session)
}

// watch notes how far readers can see.
func (c *crashRoom) watch(t testing.TB, quit chan struct{}) {
	for after := c.base; ; {
		select {
		case <-quit:
			return
		default:
		}
		p, err := c.log.Read(t.Context(), after, 1<<60, 1<<20, nil)
		if err != nil {
			return
		}
		if p.Last > 0 {
			after = p.Last
		}
		c.note(&c.seen, after)
	}
}

// verify returns how much was lost, and checks that what is there belongs
// together.
func (c *crashRoom) verify(t testing.TB, s store.Store) (lost int) {
	r := openRoom(t, s, c.name)
	head := r.log.State().Head
	if known := max(c.acked, c.seen); known > head {
		lost += int(known - head)
	}
	if p, err := r.log.Read(t.Context(), 0, head, 1<<40, nil); err != nil || p.Last != head {
		t.Errorf("room %q: read up to %d of %d: %v", c.name, p.Last, head, err)
	}
	for n := max(c.base, 1); n <= head; n++ {
		if got, err := r.log.Lookup(t.Context(), "alice", fmt.Sprint("c", n)); err != nil || got != n {
			t.Errorf("room %q: client id of %d is at %d: %v", c.name, n, got, err)
		}
	}
	session, err := s.Session(t.Context(), c.session)
	if c.attach > 0 && (err != nil || session.Attach < c.attach) {
		lost++
	}
	c.attach = session.Attach
	return lost
}
