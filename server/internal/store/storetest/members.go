package storetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/reprise-chat/reprise/server/internal/store"
)

func testMembers(t *testing.T, h Harness) {
	r := openRoom(t, h.Store, "r")
	r.must(r.creation("alice"))
	r.post(1)
	r.change("bob", true, "bob")
	r.change("carol", true, "alice")
	r.change("bob", false, "alice")
	r.change("carol", false, "carol")
	r.change("carol", true, "carol")
	want := []store.Member{{User: "alice", Joined: 1}, {User: "carol", Joined: 7}}
	for range 2 {
		r.members(want)
		if _, ok, err := r.log.Member(t.Context(), "bob"); ok || err != nil {
			t.Fatalf("Member of one who left: %t, %v", ok, err)
		}
		if _, ok, err := r.log.Member(t.Context(), "car"); ok || err != nil {
			t.Fatalf("Member of a prefix: %t, %v", ok, err)
		}
		r.reopen(h.Reopen())
	}
	// One append with several changes; the last one of a user counts. What
	// changes nothing is not counted.
	r.must(&store.Append{
		Expect: r.head(),
		Events: []store.Event{r.eventAt(8, "x", "", ""), r.eventAt(9, "x", "", "")},
		Members: []store.MemberChange{
			{User: "dave", Joined: true, Offset: 8}, {User: "erin", Joined: true, Offset: 8},
			{User: "dave", Joined: false, Offset: 9}, {User: "bob", Joined: false, Offset: 9},
			{User: "alice", Joined: true, Offset: 9},
		},
	})
	want = []store.Member{{User: "alice", Joined: 9}, {User: "carol", Joined: 7}, {User: "erin", Joined: 8}}
	r.members(want)
	r.trim(store.Bounds{MaxEvents: 1}) // membership outlives its event
	r.members(want)
	r.reopen(h.Reopen())
	r.members(want)
}

// members compares the room's members with want.
func (r *room) members(want []store.Member) {
	r.tb.Helper()
	got, err := r.log.Members(r.tb.Context(), "", 1000)
	check(r.tb, err)
	if !slices.Equal(got, want) {
		r.tb.Fatalf("members %v; want %v", got, want)
	}
	if n := r.log.State().Members; int(n) != len(want) {
		r.tb.Fatalf("the state counts %d members; want %d", n, len(want))
	}
	for _, m := range want {
		if got, ok, err := r.log.Member(r.tb.Context(), m.User); !ok || err != nil || got != m {
			r.tb.Fatalf("Member(%q): %v, %t, %v; want %v", m.User, got, ok, err, m)
		}
	}
}

func testMembersPages(t *testing.T, h Harness) {
	r, other := newRoom(t, h.Store, "r"), newRoom(t, h.Store, "s")
	users := []string{"", "a", "a\x00", "a\x00b", "aa", "b", "\xff", "\xff\x00", "user:1", "user:10", "user:2"}
	for _, u := range users {
		r.change(u, true, u)
		other.change("other "+u, true, u)
	}
	slices.Sort(users)
	for limit := 1; limit <= len(users)+1; limit++ {
		var got []string
		for from := ""; ; from = got[len(got)-1] + "\x00" {
			page, err := r.log.Members(t.Context(), from, limit)
			check(t, err)
			if len(page) == 0 {
				break
			}
			if len(page) > limit {
				t.Fatalf("%d members; the limit is %d", len(page), limit)
			}
			for _, m := range page {
				got = append(got, m.User)
			}
		}
		if !slices.Equal(got, users) {
			t.Fatalf("limit %d: %q; want %q", limit, got, users)
		}
	}
}

func testUserRooms(t *testing.T, h Harness) {
	s := h.Store
	lobby, den := newRoom(t, s, "lobby"), newRoom(t, s, "den")
	den.post(3)
	lobby.change("bob", true, "alice")
	den.change("bob", true, "bob")
	lobby.change("bob", false, "alice")
	den.change("bo", true, "bo")
	want := []store.UserRoom{
		{Room: "den", Joined: true, Offset: 5, By: "bob"},
		{Room: "lobby", Joined: false, Offset: 3, By: "alice"},
	}
	var last uint64
	for range 2 {
		got, version, err := s.UserRooms(t.Context(), "bob")
		check(t, err)
		for i := range got {
			if got[i].Version == 0 || got[i].Version > version {
				t.Fatalf("%+v in a snapshot of version %d", got[i], version)
			}
		}
		if len(got) != 2 || got[0].Version >= got[1].Version {
			t.Fatalf("rooms %+v: versions in the order of the changes wanted", got)
		}
		if version < last {
			t.Fatalf("version went from %d to %d", last, version)
		}
		last = version
		for i := range got {
			got[i].Version = 0
		}
		if !slices.Equal(got, want) {
			t.Fatalf("rooms %+v; want %+v", got, want)
		}
		s = h.Reopen()
	}
	lobby.reopen(s)
	lobby.change("bob", true, "bob")
	got, _, err := s.UserRooms(t.Context(), "bob")
	check(t, err)
	if r := got[1]; !r.Joined || r.Version <= last || r.Offset != 4 {
		t.Fatalf("after joining again: %+v; version was %d", r, last)
	}
	if got, _, err := s.UserRooms(t.Context(), "nobody"); len(got) != 0 || err != nil {
		t.Fatalf("rooms of nobody: %v, %v", got, err)
	}
}

// testUserRoomsSnapshot reads a user's rooms while the user joins many: each
// answer has exactly the changes up to its version.
func testUserRoomsSnapshot(t *testing.T, h Harness) {
	const writers, each = 4, 40
	type answer struct {
		rooms   map[string]uint64
		version uint64
	}
	var answers []answer
	read := func() {
		rooms, version, err := h.Store.UserRooms(t.Context(), "bob")
		if err != nil {
			t.Error(err)
		}
		a := answer{rooms: make(map[string]uint64), version: version}
		for _, r := range rooms {
			a.rooms[r.Room] = r.Version
		}
		answers = append(answers, a)
	}
	var joining, reading sync.WaitGroup
	for w := range writers {
		joining.Go(func() {
			for n := range each {
				newRoom(t, h.Store, fmt.Sprint(w, " ", n)).change("bob", true, "bob")
			}
		})
	}
	quit := make(chan struct{})
	reading.Go(func() {
		for {
			select {
			case <-quit:
				return
			default:
				read()
			}
		}
	})
	joining.Wait()
	close(quit)
	reading.Wait()
	read()
	final := answers[len(answers)-1]
	if len(final.rooms) != writers*each {
		t.Fatalf("%d rooms; want %d", len(final.rooms), writers*each)
	}
	for _, a := range answers {
		for room, version := range final.rooms {
			if got, ok := a.rooms[room]; ok != (version <= a.version) || ok && got != version {
				t.Fatalf("version %d: change %d of room %q is there: %t", a.version, version, room, ok)
			}
		}
	}
}
