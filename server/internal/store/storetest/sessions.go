package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// sessionOf returns a session as first put.
func sessionOf(id, user string, created time.Time) store.Session {
	return store.Session{
		ID: id, User: user, Attach: 1, Created: created, Attached: created,
		Keys: []store.Key{{Hash: [32]byte{1, 2, 3}, Attach: 1}},
	}
}

// wantSession compares the stored session with want.
func wantSession(t *testing.T, s store.Store, want store.Session) {
	t.Helper()
	got, err := s.Session(t.Context(), want.ID)
	check(t, err)
	equalSessions(t, []store.Session{got}, []store.Session{want})
}

func equalSessions(t *testing.T, got, want []store.Session) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d sessions; want %d", len(got), len(want))
	}
	for i := range got {
		g, w := got[i], want[i]
		if !g.Created.Equal(w.Created) || !g.Attached.Equal(w.Attached) {
			t.Fatalf("session %q: created %v, attached %v; want %v, %v", g.ID, g.Created, g.Attached, w.Created, w.Attached)
		}
		g.Created, g.Attached, w.Created, w.Attached = time.Time{}, time.Time{}, time.Time{}, time.Time{}
		g.Used, w.Used = 0, 0 // the engine's
		if len(g.Keys) == 0 && len(w.Keys) == 0 {
			g.Keys, w.Keys = nil, nil
		}
		if !reflect.DeepEqual(g, w) {
			t.Fatalf("session %+v; want %+v", g, w)
		}
	}
}

func wantPositions(t *testing.T, s store.Store, id string, want ...store.Position) {
	t.Helper()
	got, err := s.Positions(t.Context(), id)
	check(t, err)
	if !slices.Equal(got, want) {
		t.Fatalf("positions of %q: %+v; want %+v", id, got, want)
	}
}

func testSession(t *testing.T, h Harness) {
	_, err := h.Store.Session(t.Context(), "s_1")
	wantIs(t, err, store.ErrNotFound)
	want := store.Session{
		ID: "s_1", User: "alice", Attach: 7, Seen: 42, Checkpoint: 3,
		Created: epoch, Attached: epoch.Add(time.Nanosecond),
		Keys: []store.Key{{Hash: [32]byte{1}, Attach: 6, Told: 41}, {Hash: [32]byte{31: 2}, Attach: 7}},
	}
	given := want
	given.Keys = slices.Clone(want.Keys)
	check(t, h.Store.PutSession(t.Context(), given, nil))
	given.Keys[0].Attach = 99 // ours again
	want.Revision = 1
	wantSession(t, h.Store, want)
	want.Attach, want.User, want.Keys = 8, "al\xffice", nil
	check(t, h.Store.PutSession(t.Context(), want, nil))
	want.Revision = 2
	wantSession(t, h.Store, want)
	wantSession(t, h.Reopen(), want)
}

func testSessionConflict(t *testing.T, h Harness) {
	s := sessionOf("s_1", "alice", epoch)
	position := []store.Position{{Room: "r", Offset: 1}}
	s.Revision = 1
	wantIs(t, h.Store.PutSession(t.Context(), s, position), store.ErrConflict) // there is none
	_, err := h.Store.Session(t.Context(), "s_1")
	wantIs(t, err, store.ErrNotFound)
	s.Revision = 0
	check(t, h.Store.PutSession(t.Context(), s, nil))
	for _, revision := range []uint64{0, 2, 1 << 40} {
		other := s
		other.Revision, other.User = revision, "mallory"
		wantIs(t, h.Store.PutSession(t.Context(), other, position), store.ErrConflict)
	}
	s.Revision = 1
	wantSession(t, h.Store, s)
	wantPositions(t, h.Store, "s_1")
}

// The order of use is the engine's, and no clock's.
func testSessionUse(t *testing.T, h Harness) {
	st := h.Store
	used := func(id string) uint64 {
		t.Helper()
		s, err := st.Session(t.Context(), id)
		check(t, err)
		return s.Used
	}
	last := uint64(0)
	newer := func(what, id string) {
		t.Helper()
		n := used(id)
		if n <= last {
			t.Fatalf("%s: session %q was used at %d; an earlier use was at %d", what, id, n, last)
		}
		last = n
	}
	for i, id := range []string{"s_1", "s_2", "s_3"} { // each by an earlier clock
		check(t, st.PutSession(t.Context(), sessionOf(id, "alice", epoch.AddDate(-i, 0, 0)), nil))
		newer("put", id)
	}
	first, err := st.Session(t.Context(), "s_1")
	check(t, err)
	first.Used = 0 // what is given does not count
	check(t, st.PutSession(t.Context(), first, nil))
	newer("put again", "s_1")
	wantIs(t, st.PutSession(t.Context(), first, nil), store.ErrConflict)
	if n := used("s_1"); n != last {
		t.Fatalf("a conflict was a use: %d, was %d", n, last)
	}
	st = h.Reopen()
	if n := used("s_1"); n != last {
		t.Fatalf("used at %d after a restart; want %d", n, last)
	}
	check(t, st.SavePositions(t.Context(), "s_2", 1, 2, nil))
	newer("positions saved", "s_2")
	check(t, st.PutSession(t.Context(), sessionOf("s_4", "bob", epoch), nil))
	newer("put after a restart", "s_4")
}

func testSessions(t *testing.T, h Harness) {
	created := []time.Time{{}, epoch.Add(-100 * 365 * 24 * time.Hour), epoch, epoch.Add(1), epoch.Add(time.Second)}
	var want []store.Session
	for i, c := range created {
		s := sessionOf(fmt.Sprint("s_", 9-i), "alice", c)
		want = append(want, s)
	}
	for _, i := range []int{3, 0, 4, 2, 1} {
		check(t, h.Store.PutSession(t.Context(), want[i], nil))
		want[i].Revision = 1
	}
	for i, user := range []string{"alic", "alice2", "alice\x00", "bob"} {
		check(t, h.Store.PutSession(t.Context(), sessionOf(fmt.Sprint("t_", i), user, epoch), nil))
	}
	list := func(s store.Store, user string, want ...store.Session) {
		t.Helper()
		got, err := s.Sessions(t.Context(), user)
		check(t, err)
		equalSessions(t, got, want)
	}
	list(h.Store, "alice", want...)
	list(h.Store, "nobody")
	s := h.Reopen()
	list(s, "alice", want...)
	// The list follows what is put.
	moved := want[0]
	moved.User = "nobody"
	check(t, s.PutSession(t.Context(), moved, nil))
	check(t, s.DeleteSession(t.Context(), want[1].ID))
	moved.Revision = 2
	list(s, "nobody", moved)
	list(s, "alice", want[2:]...)
}

func testDeleteSession(t *testing.T, h Harness) {
	check(t, h.Store.DeleteSession(t.Context(), "s_1")) // there is none
	ids := []string{"s_1", "s_10", "s_1\x00", "s_"}
	for _, id := range ids {
		p := []store.Position{{Room: "a", Offset: 1}, {Room: "b", Offset: 2}}
		check(t, h.Store.PutSession(t.Context(), sessionOf(id, "alice", epoch), p))
	}
	check(t, h.Store.DeleteSession(t.Context(), "s_1"))
	s := h.Store
	for range 2 {
		_, err := s.Session(t.Context(), "s_1")
		wantIs(t, err, store.ErrNotFound)
		wantPositions(t, s, "s_1")
		for _, id := range ids[1:] {
			wantPositions(t, s, id, store.Position{Room: "a", Offset: 1}, store.Position{Room: "b", Offset: 2})
		}
		s = h.Reopen()
	}
	wantIs(t, s.SavePositions(t.Context(), "s_1", 1, 1, nil), store.ErrNotFound)
	// Born again, it has nothing of its former life.
	check(t, s.PutSession(t.Context(), sessionOf("s_1", "alice", epoch), []store.Position{{Room: "c", Offset: 3}}))
	wantPositions(t, s, "s_1", store.Position{Room: "c", Offset: 3})
}

func testPositions(t *testing.T, h Harness) {
	wantPositions(t, h.Store, "s_1")
	s := sessionOf("s_1", "alice", epoch)
	s.Checkpoint = 4
	given := []store.Position{
		{Room: "b", Incarnation: "i_x", Offset: 2}, {Room: "a\x00", Offset: 1}, {Room: "a", Offset: 3}, {Room: "\xff", Offset: 4},
	}
	check(t, h.Store.PutSession(t.Context(), s, given))
	given[0].Offset = 99 // ours again
	a, b := store.Position{Room: "a", Offset: 3, Checkpoint: 4}, store.Position{Room: "b", Incarnation: "i_x", Offset: 2, Checkpoint: 4}
	a0, ff := store.Position{Room: "a\x00", Offset: 1, Checkpoint: 4}, store.Position{Room: "\xff", Offset: 4, Checkpoint: 4}
	wantPositions(t, h.Store, "s_1", a, a0, b, ff)
	// Only rooms that are named are replaced, downwards too.
	s.Revision, s.Checkpoint = 1, 5
	check(t, h.Store.PutSession(t.Context(), s, []store.Position{{Room: "b", Incarnation: "i_y", Offset: 1}}))
	b = store.Position{Room: "b", Incarnation: "i_y", Offset: 1, Checkpoint: 5}
	wantPositions(t, h.Store, "s_1", a, a0, b, ff)
	wantPositions(t, h.Reopen(), "s_1", a, a0, b, ff)
}

func testSavePositions(t *testing.T, h Harness) {
	position := func(offset uint64) []store.Position {
		return []store.Position{{Room: "r", Incarnation: "i", Offset: offset}}
	}
	ctx := t.Context()
	wantIs(t, h.Store.SavePositions(ctx, "s_1", 1, 1, position(1)), store.ErrNotFound)
	s := sessionOf("s_1", "alice", epoch)
	check(t, h.Store.PutSession(ctx, s, nil))
	s.Revision = 1
	check(t, h.Store.SavePositions(ctx, "s_1", 1, 5, position(10)))
	s.Checkpoint = 5
	wantSession(t, h.Store, s) // the revision is the same
	wantPositions(t, h.Store, "s_1", store.Position{Room: "r", Incarnation: "i", Offset: 10, Checkpoint: 5})

	// An older or a newer attach number is fenced off.
	for _, attach := range []uint64{0, 2} {
		wantIs(t, h.Store.SavePositions(ctx, "s_1", attach, 9, position(99)), store.ErrConflict)
	}
	wantSession(t, h.Store, s)

	// PutSession by one who read before keeps the checkpoint that was
	// confirmed.
	s.Checkpoint, s.Attach = 2, 2
	check(t, h.Store.PutSession(ctx, s, nil))
	s.Revision, s.Checkpoint = 2, 5
	wantSession(t, h.Store, s)
	wantIs(t, h.Store.SavePositions(ctx, "s_1", 1, 6, position(11)), store.ErrConflict)

	// A lower checkpoint is not an error and lowers nothing.
	check(t, h.Store.SavePositions(ctx, "s_1", 2, 6, nil))
	check(t, h.Store.SavePositions(ctx, "s_1", 2, 3, position(12)))
	s.Checkpoint = 6
	r := h.Reopen()
	wantSession(t, r, s)
	got, err := r.Positions(ctx, "s_1")
	if err != nil || len(got) != 1 || got[0].Offset != 12 {
		t.Fatalf("positions %+v, %v", got, err)
	}
}

// testConcurrentSessions raises attach numbers from several sides, as nodes
// do: none is given twice.
func testConcurrentSessions(t *testing.T, h Harness) {
	const writers, each = 8, 20
	check(t, h.Store.PutSession(t.Context(), sessionOf("s_1", "alice", epoch), nil))
	var mu sync.Mutex
	given := make(map[uint64]bool)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				n, err := raise(t.Context(), h.Store, "s_1")
				if err != nil {
					t.Error(err)
					return
				}
				// Fenced as soon as another one was faster.
				err = h.Store.SavePositions(t.Context(), "s_1", n, n, []store.Position{{Room: "r", Offset: n}})
				if err != nil && !errors.Is(err, store.ErrConflict) {
					t.Error(err)
				}
				mu.Lock()
				if given[n] {
					t.Errorf("attach number %d was given twice", n)
				}
				given[n] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	s, err := h.Reopen().Session(t.Context(), "s_1")
	if err != nil || s.Attach != 1+writers*each || s.Revision != 1+writers*each {
		t.Fatalf("session at the end: %+v, %v", s, err)
	}
}

// raise raises the attach number of a session and returns it.
func raise(ctx context.Context, s store.Store, id string) (uint64, error) {
	for {
		session, err := s.Session(ctx, id)
		if err != nil {
			return 0, err
		}
		session.Attach++
		if err = s.PutSession(ctx, session, nil); !errors.Is(err, store.ErrConflict) {
			return session.Attach, err
		}
	}
}

// testContext calls everything with a context that has ended.
func testContext(t *testing.T, h Harness) {
	r := openRoom(t, h.Store, "r")
	r.must(r.creation("alice"))
	check(t, h.Store.PutSession(t.Context(), sessionOf("s_1", "alice", epoch), []store.Position{{Room: "r", Offset: 1}}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, l := h.Store, r.log
	for name, call := range map[string]func() error{
		"OpenLog":       func() error { _, err := s.OpenLog(ctx, "r"); return err },
		"Rooms":         func() error { _, err := s.Rooms(ctx, "", 1); return err },
		"UserRooms":     func() error { _, _, err := s.UserRooms(ctx, "alice"); return err },
		"Session":       func() error { _, err := s.Session(ctx, "s_1"); return err },
		"Sessions":      func() error { _, err := s.Sessions(ctx, "alice"); return err },
		"PutSession":    func() error { return s.PutSession(ctx, sessionOf("s_2", "alice", epoch), nil) },
		"DeleteSession": func() error { return s.DeleteSession(ctx, "s_2") },
		"Positions":     func() error { _, err := s.Positions(ctx, "s_1"); return err },
		"SavePositions": func() error { return s.SavePositions(ctx, "s_1", 1, 1, nil) },
		"Read":          func() error { _, err := l.Read(ctx, 0, 1, 100, nil); return err },
		"Lookup":        func() error { _, err := l.Lookup(ctx, "alice", "c"); return err },
		"Member":        func() error { _, _, err := l.Member(ctx, "alice"); return err },
		"Members":       func() error { _, err := l.Members(ctx, "", 1); return err },
		"Trim":          func() error { _, err := l.Trim(ctx, store.Bounds{MaxEvents: 1}); return err },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v; want %v", name, err, context.Canceled)
		}
	}
	r.check(1)
}
