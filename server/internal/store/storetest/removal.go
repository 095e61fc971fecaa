package storetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// invite appends an invitation.
func (r *room) invite(user, by string) {
	r.tb.Helper()
	r.must(&store.Append{
		Expect:  r.head(),
		Events:  []store.Event{r.event(by, "", "invited "+user)},
		Members: []store.MemberChange{{User: user, Invited: true, Offset: r.head() + 1, By: by, Time: epoch}},
	})
}

func wantRooms(t *testing.T, s store.Store, user string, want int) {
	t.Helper()
	if n, err := s.CountRooms(t.Context(), user); n != want || err != nil {
		t.Fatalf("%q is in %d rooms, %v; want %d", user, n, err, want)
	}
}

func testCountRooms(t *testing.T, h Harness) {
	r, other := newRoom(t, h.Store, "r"), newRoom(t, h.Store, "other")
	wantRooms(t, h.Store, "bob", 0)
	r.change("bob", true, "bob")
	r.change("bob", true, "bob") // once more is not one more
	wantRooms(t, h.Store, "bob", 1)
	other.change("bob", false, "bob") // he was none
	wantRooms(t, h.Store, "bob", 1)
	other.change("bob", true, "bob")
	wantRooms(t, h.Store, "bob", 2)
	r.change("bob", false, "bob")
	r.change("bob", false, "bob")
	wantRooms(t, h.Store, "bob", 1)
	// Several changes in one append.
	r.must(&store.Append{
		Expect: r.head(), Events: []store.Event{r.event("alice", "", "x")},
		Members: []store.MemberChange{
			{User: "bob", Joined: true, Offset: r.head() + 1}, {User: "bob", Offset: r.head() + 1}, {User: "eve", Joined: true, Offset: r.head() + 1},
		},
	})
	for _, open := range []func() store.Store{func() store.Store { return h.Store }, h.Reopen} {
		s := open()
		wantRooms(t, s, "bob", 1)
		wantRooms(t, s, "eve", 1)
		wantRooms(t, s, "nobody", 0)
	}
}

// testEndedMemberships has a user who leaves more rooms than are remembered:
// the newest ends are, and current memberships always.
func testEndedMemberships(t *testing.T, h Harness) {
	const more = 50
	r := newRoom(t, h.Store, "stays")
	r.change("bob", true, "bob")
	back := newRoom(t, h.Store, "comes back")
	back.change("bob", true, "bob")
	back.change("bob", false, "bob")
	done := make(chan error, store.MaxEnded+more)
	for i := range store.MaxEnded + more {
		name := fmt.Sprintf("left %04d", i)
		l := openRoom(t, h.Store, name)
		check(t, l.log.Append(&store.Append{
			Create: &store.Meta{Name: name}, Events: []store.Event{l.eventAt(1, "bob", "", "joined"), l.eventAt(2, "bob", "", "left")},
			Members: []store.MemberChange{{User: "bob", Joined: true, Offset: 1, By: "bob"}, {User: "bob", Offset: 2, By: "bob"}},
			Done:    func(err error) { done <- err },
		}))
		if i == more {
			back.change("bob", true, "bob") // and is not one of the ended ones any more
		}
	}
	for range cap(done) {
		check(t, <-done)
	}
	verify := func(s store.Store) {
		t.Helper()
		all, version, err := s.UserRooms(t.Context(), "bob")
		check(t, err)
		var current, ended []string
		for _, u := range all {
			if u.Version > version {
				t.Fatalf("%+v in a snapshot of version %d", u, version)
			}
			if u.Joined {
				current = append(current, u.Room)
			} else {
				ended = append(ended, u.Room)
			}
		}
		if !slices.Equal(current, []string{"comes back", "stays"}) {
			t.Fatalf("current memberships %q", current)
		}
		if len(ended) != store.MaxEnded || ended[0] != fmt.Sprintf("left %04d", more) {
			t.Fatalf("%d memberships have ended, from %q on", len(ended), ended[0])
		}
		wantRooms(t, s, "bob", 2)
	}
	verify(h.Store)
	verify(h.Reopen())
}

func testInvitations(t *testing.T, h Harness) {
	s := h.Store
	rooms := []*room{newRoom(t, s, "a"), newRoom(t, s, "b"), newRoom(t, s, "c")}
	for _, r := range rooms {
		r.invite("bob", "alice")
		r.invite("bob", "eve") // who comes second changes nothing
	}
	rooms[0].invite("carol", "alice")
	want := func(user string, names ...string) {
		t.Helper()
		var got []string
		for from := ""; ; from = got[len(got)-1] + "\x00" {
			page, err := s.Invitations(t.Context(), user, from, 2)
			check(t, err)
			for _, i := range page {
				if i.User != user || i.By != "alice" || !i.Time.Equal(epoch) || i.Offset == 0 {
					t.Fatalf("invitation %+v", i)
				}
				got = append(got, i.Room)
			}
			if len(page) < 2 {
				break
			}
		}
		if !slices.Equal(got, names) {
			t.Fatalf("%q is invited to %q; want %q", user, got, names)
		}
		if n, err := s.CountInvitations(t.Context(), user, "alice"); n != len(names) || err != nil {
			t.Fatalf("%d invitations of %q by alice, %v; want %d", n, user, err, len(names))
		}
		if n, err := s.CountInvitations(t.Context(), user, "eve"); n != 0 || err != nil {
			t.Fatalf("%d invitations of %q by eve, %v", n, user, err)
		}
	}
	want("bob", "a", "b", "c")
	want("carol", "a")
	wantRooms(t, s, "bob", 0)
	if all, _, err := s.UserRooms(t.Context(), "bob"); len(all) != 0 || err != nil {
		t.Fatalf("an invitation is a membership: %v, %v", all, err)
	}
	rooms[1].change("bob", true, "bob")
	want("bob", "a", "c")
	rooms[1].invite("bob", "alice") // he is a member
	s = h.Reopen()
	for _, r := range rooms {
		r.reopen(s)
	}
	want("bob", "a", "c")
	for by, count := range map[string]int{"alice": 2, "eve": 0} {
		if n, err := rooms[0].log.CountInvitedBy(t.Context(), by); n != count || err != nil {
			t.Fatalf("%d invitations to a by %q, %v; want %d", n, by, err, count)
		}
	}
	if i, ok, err := rooms[0].log.Invitation(t.Context(), "bob"); !ok || err != nil || i.By != "alice" {
		t.Fatalf("invitation of bob: %+v, %t, %v", i, ok, err)
	}
	if _, ok, err := rooms[1].log.Invitation(t.Context(), "bob"); ok || err != nil {
		t.Fatalf("bob has joined and is invited: %v", err)
	}
	if n := rooms[0].log.State().Invited; n != 2 {
		t.Fatalf("%d are invited to a; want 2", n)
	}
}

func emptyRooms(t *testing.T, s store.Store) (all []store.EmptyRoom) {
	t.Helper()
	all, err := s.EmptyRooms(t.Context(), 0, s.Version(), 1000)
	check(t, err)
	return all
}

func testEmptyRooms(t *testing.T, h Harness) {
	s := h.Store
	names := func() (names []string) {
		for _, e := range emptyRooms(t, s) {
			names = append(names, e.Name)
		}
		return names
	}
	want := func(want ...string) {
		t.Helper()
		if got := names(); !slices.Equal(got, want) {
			t.Fatalf("without members are %q; want %q", got, want)
		}
	}
	a, b := openRoom(t, s, "a"), openRoom(t, s, "b")
	a.must(a.creation("alice"))
	b.must(b.creation("alice"))
	want()
	b.change("alice", false, "alice")
	a.change("alice", false, "alice")
	want("b", "a") // in the order in which they became so
	before := s.Version()
	newRoom(t, s, "never had any")
	want("b", "a", "never had any")
	if all, err := s.EmptyRooms(t.Context(), 0, before, 1000); err != nil || len(all) != 2 {
		t.Fatalf("up to %d: %v, %v", before, all, err)
	}
	if all, err := s.EmptyRooms(t.Context(), emptyRooms(t, s)[0].Version, before, 1); err != nil || len(all) != 1 || all[0].Name != "a" {
		t.Fatalf("the second: %v, %v", all, err)
	}
	b.change("bob", true, "bob")
	want("a", "never had any")
	b.change("bob", false, "bob")
	s = h.Reopen()
	want("a", "never had any", "b")
}

func testRemoveRoom(t *testing.T, h Harness) {
	s := h.Store
	r, stays := openRoom(t, s, "r"), openRoom(t, s, "stays")
	stays.must(stays.creation("alice"))
	stays.post(3)
	r.must(r.creation("alice"))
	r.publish("alice", "c1", "hello")
	r.invite("bob", "alice")
	first := r.log.Incarnation()
	remove := func(e store.EmptyRoom, want bool) {
		t.Helper()
		if removed, err := s.RemoveRoom(t.Context(), e); removed != want || err != nil {
			t.Fatalf("removed: %t, %v; want %t", removed, err, want)
		}
	}
	remove(store.EmptyRoom{Name: "r", Version: s.Version()}, false) // it has a member
	remove(store.EmptyRoom{Name: "nothing", Version: s.Version()}, false)
	r.change("alice", false, "alice")
	stale := emptyRooms(t, s)[0]
	r.change("alice", true, "alice")
	remove(stale, false)
	r.change("alice", false, "alice")
	remove(stale, false) // empty again, but since later
	remove(emptyRooms(t, s)[0], true)

	gone := func(s store.Store) {
		t.Helper()
		l := openRoom(t, s, "r").log
		if st := l.State(); st.Meta != nil || st.Head != 0 || l.Incarnation() != "" {
			t.Fatalf("a removed room has %+v", st)
		}
		if p, err := l.Read(t.Context(), 0, 10, 1000, nil); err != nil || p.Last != 0 {
			t.Fatalf("a removed room has events: %v, %v", p, err)
		}
		if n, err := l.Lookup(t.Context(), "alice", "c1"); n != 0 || err != nil {
			t.Fatalf("a removed room has client ids: %d, %v", n, err)
		}
		if names, err := s.Rooms(t.Context(), "", 10); err != nil || !slices.Equal(names, []string{"stays"}) {
			t.Fatalf("rooms %q, %v", names, err)
		}
		if n, err := s.CountInvitations(t.Context(), "bob", "alice"); n != 0 || err != nil {
			t.Fatalf("%d invitations to removed rooms, %v", n, err)
		}
		if all := emptyRooms(t, s); len(all) != 0 {
			t.Fatalf("without members are %v", all)
		}
		stays.reopen(s)
		stays.check(1)
	}
	gone(s)
	wantIs(t, r.append(&store.Append{Expect: r.head(), Events: []store.Event{r.event("alice", "", "late")}}), store.ErrConflict)
	if all, _, err := s.UserRooms(t.Context(), "alice"); err != nil || len(all) != 2 || all[0].Joined {
		t.Fatalf("what alice had in it: %v, %v", all, err) // she may have to be told still
	}

	again := openRoom(t, s, "r")
	again.must(again.creation("carol"))
	if inc := again.log.Incarnation(); inc == first || inc == "" {
		t.Fatalf("the same offsets under the same incarnation %q", inc)
	}
	again.lookup("alice", "c1", 0)
	again.check(1)
	if m, err := again.log.Members(t.Context(), "", 10); err != nil || len(m) != 1 || m[0].User != "carol" {
		t.Fatalf("members %v, %v", m, err)
	}
	again.change("carol", false, "carol")
	remove(emptyRooms(t, s)[0], true)
	gone(s)
	gone(h.Reopen())
}
