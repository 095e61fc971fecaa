package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/store"
)

func testIncarnation(t *testing.T, h Harness) {
	first := h.Store.Incarnation()
	if first == "" || first != h.Store.Incarnation() {
		t.Fatalf("incarnation %q, then %q", first, h.Store.Incarnation())
	}
	if second := h.Reopen().Incarnation(); second == first {
		t.Fatalf("incarnation %q after a new start", second)
	}
}

func testNoRoom(t *testing.T, h Harness) {
	r := openRoom(t, h.Store, "nowhere")
	st := r.log.State()
	if st.Meta != nil || st.Head != 0 || st.Oldest != 0 || st.Members != 0 || st.Stretches != nil {
		t.Fatalf("state of a room that does not exist: %+v", st)
	}
	p, err := r.log.Read(t.Context(), 0, 10, 100, nil)
	if err != nil || p.Last != 0 || len(p.Data) != 0 {
		t.Fatalf("Read: %+v, %v", p, err)
	}
	r.lookup("alice", "c1", 0)
	if _, ok, err := r.log.Member(t.Context(), "alice"); ok || err != nil {
		t.Fatalf("Member: %t, %v", ok, err)
	}
	if m, err := r.log.Members(t.Context(), "", 10); len(m) != 0 || err != nil {
		t.Fatalf("Members: %v, %v", m, err)
	}
	r.trim(store.Bounds{MaxEvents: 1, MaxBytes: 1, Since: epoch})
	names, err := h.Store.Rooms(t.Context(), "", 10)
	if len(names) != 0 || err != nil {
		t.Fatalf("Rooms after OpenLog: %q, %v", names, err)
	}
	check(t, h.Store.Writable())
}

func testCreate(t *testing.T, h Harness) {
	r := openRoom(t, h.Store, "lobby")
	want := store.Meta{
		Name: "lobby", Title: "The lobby", Private: true, Creator: "alice",
		Created:   epoch.Add(123456789 * time.Nanosecond),
		Retention: store.Retention{MaxAge: 90 * time.Minute, MaxEvents: 7, MaxBytes: 1 << 40},
	}
	a := r.creation("alice")
	meta := want
	a.Create = &meta
	r.must(a)
	meta.Title = "changed by the caller afterwards"
	verify := func() {
		t.Helper()
		st := r.log.State()
		if st.Meta == nil || !st.Meta.Created.Equal(want.Created) {
			t.Fatalf("meta: %+v", st.Meta)
		}
		got := *st.Meta
		got.Created = want.Created
		if got != want {
			t.Fatalf("meta: %+v; want %+v", got, want)
		}
		if st.Members != 1 {
			t.Fatalf("%d members; want 1", st.Members)
		}
		r.check(1)
	}
	verify()
	r.reopen(h.Reopen())
	verify()
}

func testRooms(t *testing.T, h Harness) {
	want := []string{"A", "a", "a\x01", "a b", "aa", "b", "z\xff", "\xff", "\xff\xff", "é"}
	for _, name := range want {
		newRoom(t, h.Store, name)
	}
	slices.Sort(want)
	s := h.Store
	for range 2 {
		for limit := 1; limit <= len(want)+1; limit++ {
			var got []string
			for after := ""; ; after = got[len(got)-1] {
				names, err := s.Rooms(t.Context(), after, limit)
				check(t, err)
				if len(names) > limit {
					t.Fatalf("%d names; the limit is %d", len(names), limit)
				}
				if len(names) == 0 {
					break
				}
				got = append(got, names...)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("limit %d: rooms %q; want %q", limit, got, want)
			}
		}
		s = h.Reopen()
	}
	late := newRoom(t, s, "late") // after a new start
	late.post(1)
	late.check(1)
	for _, name := range want { // and each is a room of its own
		if st := openRoom(t, s, name).log.State(); st.Meta == nil || st.Meta.Name != name || st.Head != 1 {
			t.Fatalf("room %q has state %+v", name, st)
		}
	}
}

func testRead(t *testing.T, h Harness) {
	r, other := newRoom(t, h.Store, "r"), newRoom(t, h.Store, "r2")
	for range 5 {
		r.post(2)
		other.post(1)
		a := &store.Append{Expect: r.head()}
		for i := range uint64(3) { // several events in one append
			a.Events = append(a.Events, r.eventAt(r.head()+1+i, "bob", "", "batch"))
		}
		r.must(a)
	}
	r.check(1)
	other.check(1)
	s := h.Reopen()
	r.reopen(s)
	other.reopen(s)
	r.post(3)
	r.check(1)
	other.check(1)
}

func testReadLimits(t *testing.T, h Harness) {
	r := newRoom(t, h.Store, "r")
	r.post(19)
	for after := range r.head() + 2 {
		for to := range r.head() + 3 {
			for _, fit := range []int{0, 1, 3, 100} {
				r.readLimited(after, to, fit)
			}
		}
	}
}

// readLimited reads with room for `fit` events of (after, to].
func (r *room) readLimited(after, to uint64, fit int) {
	r.tb.Helper()
	var want []byte
	first, last, maxBytes := after+1, uint64(0), 0
	for o, n := first, 0; o <= min(to, r.head()) && (n < fit || n == 0); o, n = o+1, n+1 {
		want, last = append(want, r.events[o-1]...), o
	}
	if fit > 0 {
		maxBytes = len(want)
	}
	buf := append(make([]byte, 0, 64), "before"...)
	p, err := r.log.Read(r.tb.Context(), after, to, maxBytes, buf)
	if err != nil {
		r.tb.Fatalf("Read(%d, %d, %d): %v", after, to, maxBytes, err)
	}
	if p.Last != last || last != 0 && p.First != first {
		r.tb.Fatalf("Read(%d, %d, %d): [%d, %d]; want [%d, %d]", after, to, maxBytes, p.First, p.Last, first, last)
	}
	if last != 0 && !bytes.Equal(p.Data, append([]byte("before"), want...)) {
		r.tb.Fatalf("Read(%d, %d, %d): the bytes differ", after, to, maxBytes)
	}
}

func testOwnership(t *testing.T, h Harness) {
	r := newRoom(t, h.Store, "r")
	e := r.event("alice", "c1", "text")
	a := &store.Append{Expect: 1, Events: []store.Event{e}}
	r.must(a)
	clear(e.Encoded) // ours again after Done
	r.check(1)
	p, err := r.log.Read(t.Context(), 0, 2, 1<<20, nil)
	check(t, err)
	clear(p.Data) // ours since Read returned it
	r.check(1)
	r.reopen(h.Reopen())
	r.check(1)
}

func testInvalidAppend(t *testing.T, h Harness) {
	for name, change := range map[string]func(*room, *store.Append){
		"no events":       func(_ *room, a *store.Append) { a.Events = nil },
		"not an event":    func(_ *room, a *store.Append) { a.Events[0].Encoded = []byte("nonsense") },
		"wrong offset":    func(r *room, a *store.Append) { a.Events[0] = r.eventAt(3, "alice", "", "") },
		"offset repeated": func(r *room, a *store.Append) { a.Events = append(a.Events, a.Events[0]) },
		"member elsewhere": func(_ *room, a *store.Append) {
			a.Members = []store.MemberChange{{User: "bob", Joined: true, Offset: 1}}
		},
	} {
		r := newRoom(t, h.Store, name)
		a := &store.Append{Expect: 1, Events: []store.Event{r.event("alice", "c", "text")}}
		change(r, a)
		if err := r.append(a); err == nil {
			t.Fatalf("%s: accepted", name)
		}
		r.check(1)
		r.lookup("alice", "c", 0)
		r.reopen(h.Store)
		r.post(1)
		r.check(1)
	}
}

func testAppendConflict(t *testing.T, h Harness) {
	r := openRoom(t, h.Store, "r")
	wantIs(t, r.append(&store.Append{Events: []store.Event{r.event("alice", "", "no room")}}), store.ErrConflict)
	r.reopen(h.Store)
	wantIs(t, r.append(&store.Append{Expect: 1, Create: r.creation("").Create,
		Events: []store.Event{r.eventAt(2, "alice", "", "later")}}), store.ErrConflict)
	r.reopen(h.Store)
	r.must(r.creation(""))
	wantIs(t, r.append(r.creation("")), store.ErrConflict) // exists

	r.reopen(h.Store)
	r.post(2)
	for _, expect := range []uint64{0, 2, 4, 1 << 40} {
		r.reopen(h.Store)
		e := r.eventAt(expect+1, "alice", "c", "conflict")
		m := store.MemberChange{User: "bob", Joined: true, Offset: expect + 1}
		wantIs(t, r.append(&store.Append{Expect: expect, Events: []store.Event{e}, Members: []store.MemberChange{m}}), store.ErrConflict)
		// Right, but after a failure.
		wantIs(t, r.append(&store.Append{Expect: 3, Events: []store.Event{r.event("alice", "", "late")}}), store.ErrConflict)
		r.check(1)
		r.lookup("alice", "c", 0)
		if st := r.log.State(); st.Members != 0 {
			t.Fatalf("%d members after a conflict", st.Members)
		}
	}
	r.reopen(h.Store)
	r.post(1)
	r.check(1)
}

// testTwoLogs has two Logs of one room, which a caller should not: they see one
// room, and nothing is given an offset twice.
func testTwoLogs(t *testing.T, h Harness) {
	a, b := newRoom(t, h.Store, "r"), openRoom(t, h.Store, "r")
	b.events = append(b.events, a.events...)
	for range 3 {
		a.post(1)
		b.shows(a)
		b.post(1)
		a.shows(b)
	}
	wantIs(t, a.append(&store.Append{Expect: a.head() - 1,
		Events: []store.Event{a.eventAt(a.head(), "alice", "", "again")}}), store.ErrConflict)
	b.post(1)
	a.shows(b)
}

// shows checks that r's Log shows what was appended through the other one.
func (r *room) shows(other *room) {
	r.tb.Helper()
	r.events = append(r.events[:0], other.events...)
	r.check(1)
}

func testPipeline(t *testing.T, h Harness) {
	const rooms, each, failing = 4, 300, 200
	var wg sync.WaitGroup
	for n := range rooms {
		r := newRoom(t, h.Store, fmt.Sprint("room ", n))
		outcomes := make(chan error, each+1)
		var order []uint64 // appended to by the engine, one Done after another
		wg.Add(each)
		for i := range uint64(each) {
			expect := 1 + i
			if i == failing {
				expect++ // and everything after it fails
			}
			check(t, r.log.Append(&store.Append{
				Expect: expect,
				Events: []store.Event{r.eventAt(expect+1, "alice", "", "pipelined")},
				Done: func(err error) {
					order = append(order, i)
					outcomes <- err
					wg.Done()
				},
			}))
		}
		wg.Wait()
		if len(order) != each || !slices.IsSorted(order) {
			t.Fatalf("%d times Done, in order: %t", len(order), slices.IsSorted(order))
		}
		for i := range each {
			if err := <-outcomes; (err == nil) != (i < failing) || err != nil && !errors.Is(err, store.ErrConflict) {
				t.Fatalf("append %d: %v", i, err)
			}
		}
		if st := r.log.State(); st.Head != 1+failing {
			t.Fatalf("head is %d; want %d", st.Head, 1+failing)
		}
	}
}

// testVisibleWhenDone reads from within Done, and checks all the time that
// nothing is visible before.
func testVisibleWhenDone(t *testing.T, h Harness) {
	r := newRoom(t, h.Store, "r")
	const n = 200
	done := make(chan error, n)
	for i := range uint64(n) {
		e := r.eventAt(i+2, "alice", fmt.Sprint("c", i), "text")
		check(t, r.log.Append(&store.Append{Expect: i + 1, Events: []store.Event{e}, Done: func(err error) {
			if err == nil && r.log.State().Head < i+2 {
				err = fmt.Errorf("done with offset %d, state has head %d", i+2, r.log.State().Head)
			}
			done <- err
		}}))
	}
	for i := range uint64(n) {
		check(t, <-done)
		r.lookup("alice", fmt.Sprint("c", i), i+2)
		before := r.log.State().Head
		p, err := r.log.Read(t.Context(), i+1, 1<<60, 1<<20, nil)
		check(t, err)
		if after := r.log.State().Head; p.Last < before || p.Last > after || p.Last < i+2 {
			t.Fatalf("read up to %d; head was %d before and %d after", p.Last, before, after)
		}
	}
}

func testConcurrentAppends(t *testing.T, h Harness) {
	const writers, each = 8, 25
	newRoom(t, h.Store, "r")
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			r := openRoom(t, h.Store, "r")
			for n := 0; n < each; {
				head := r.log.State().Head
				err := r.append(&store.Append{Expect: head,
					Events: []store.Event{r.eventAt(head+1, fmt.Sprint("user", w), fmt.Sprint("c", n), "text")}})
				switch {
				case err == nil:
					n++
				case errors.Is(err, store.ErrConflict):
					r.reopen(h.Store)
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	r := openRoom(t, h.Reopen(), "r")
	p, err := r.log.Read(t.Context(), 1, 1<<60, 1<<30, nil)
	check(t, err)
	events, err := event.DecodeAll(p.Data)
	check(t, err)
	if len(events) != writers*each {
		t.Fatalf("%d events; want %d", len(events), writers*each)
	}
	for _, e := range events {
		r.lookup(e.GetSender(), e.GetClientId(), e.GetOffset())
	}
}

func testStretches(t *testing.T, h Harness) {
	r, quiet := newRoom(t, h.Store, "r"), newRoom(t, h.Store, "quiet")
	want := []store.Stretch{{Incarnation: r.log.Incarnation(), First: 1}}
	quietly := []store.Stretch{{Incarnation: quiet.log.Incarnation(), First: 1}}
	verify := func(r *room, want []store.Stretch) {
		t.Helper()
		if got := r.log.State().Stretches; !slices.Equal(got, want) {
			t.Fatalf("room %q: stretches %v; want %v", r.name, got, want)
		}
	}
	for range 3 {
		r.post(2)
		verify(r, want)
		s := h.Reopen()
		r.reopen(s)
		quiet.reopen(s)
		verify(r, want) // begins with the first append, not with the start
		held := r.log.State().Stretches
		want = append(slices.Clone(want), store.Stretch{Incarnation: s.Incarnation(), First: r.head() + 1})
		r.post(1)
		verify(r, want)
		if len(held) != len(want)-1 || !slices.Equal(held, want[:len(held)]) {
			t.Fatalf("stretches that were returned before changed to %v", held)
		}
	}
	verify(quiet, quietly)
	// A trim takes no stretch away that a client may still ask about.
	r.trim(store.Bounds{MaxEvents: 1})
	verify(r, want)
}
