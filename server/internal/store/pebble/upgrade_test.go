package pebble

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reprise-chat/reprise/server/internal/store"
	"github.com/reprise-chat/reprise/server/internal/store/crashfs"
)

// TestFormat1 opens a directory that the release before wrote, with format 1:
// nothing of it is lost, and what it did not count is counted.
func TestFormat1(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "format1"))); err != nil {
		t.Fatal(err)
	}
	clean := func() {
		t.Helper()
		if r, err := Check(t.Context(), dir, CheckOptions{}); err != nil || r.Damaged() {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	clean()
	for round := range 2 {
		s := mustOpen(t, dir, options(t))
		lobby := logOf(t, s, "lobby")
		if st := lobby.State(); st.Head != 6 || st.Members != 2 || len(st.Stretches) != 2 {
			t.Fatalf("lobby is %+v", st)
		}
		if n, err := lobby.Lookup(t.Context(), "alice", "c9"); n != 6 || err != nil {
			t.Fatalf("c9 is at %d, %v", n, err)
		}
		empty, err := s.EmptyRooms(t.Context(), 0, s.Version(), 10)
		if err != nil || len(empty) != 1 || empty[0].Name != "empty" {
			t.Fatalf("without members are %v, %v", empty, err)
		}
		for user, want := range map[string][]string{"alice": {"den", "empty", "lobby"}, "bob": {"lobby"}, "carol": {"lobby"}, "dave": {"den"}} {
			wantMemberships(t, s, user, want)
		}
		if p, err := s.Positions(t.Context(), "s_1"); err != nil || len(p) != 1 || p[0].Offset != 3 {
			t.Fatalf("positions %v, %v", p, err)
		}
		if round == 1 {
			// The first changes since then, which make the counts.
			change(t, lobby, "carol", true)
			change(t, logOf(t, s, "den"), "alice", false)
			wantMemberships(t, s, "alice", []string{"den", "empty", "lobby"})
			if removed, err := s.RemoveRoom(t.Context(), empty[0]); !removed || err != nil {
				t.Fatalf("the empty room is not removed: %v", err)
			}
		}
		mustClose(t, s)
		clean()
	}
}

// wantMemberships compares a user's memberships, and the count of those that
// are current.
func wantMemberships(t *testing.T, s store.Store, user string, want []string) {
	t.Helper()
	all, _, err := s.UserRooms(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	current := 0
	for _, u := range all {
		names = append(names, u.Room)
		if u.Joined {
			current++
		}
	}
	if !slices.Equal(names, want) {
		t.Fatalf("%s has %q, want %q", user, names, want)
	}
	if n, err := s.CountRooms(t.Context(), user); n != current || err != nil {
		t.Fatalf("%s is in %d rooms, %v; want %d", user, n, err, current)
	}
}

// TestRemovalIsWhole cuts the power while rooms are removed: each is there
// with everything, or gone with everything.
func TestRemovalIsWhole(t *testing.T) {
	const rooms, cuts = 20, 12
	mem := crashfs.New()
	o := options(t)
	o.FS = mem
	s := mustOpen(t, "data", o)
	defer func() { mustClose(t, s) }()
	for i := range rooms {
		l := logOf(t, s, fmt.Sprint("room", i))
		change(t, l, "alice", true)
		fill(t, l, 30)
		invite(t, l, "bob", "alice")
		change(t, l, "alice", false)
	}
	removed := make(chan error, 1)
	go func() {
		all, err := s.EmptyRooms(context.Background(), 0, s.Version(), rooms)
		for _, e := range all {
			if err == nil {
				_, err = s.RemoveRoom(context.Background(), e)
			}
		}
		removed <- err
	}()
	var clones []*crashfs.FS
	for i := range cuts {
		clones = append(clones, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(uint64(i), 0))}))
		time.Sleep(time.Duration(i) * 100 * time.Microsecond)
	}
	if err := <-removed; err != nil {
		t.Fatal(err)
	}
	clones = append(clones, mem.CrashClone(vfs.CrashCloneCfg{}))
	left := rooms
	for i, clone := range clones {
		o.FS = clone
		reopened := mustOpen(t, "data", o)
		names, err := reopened.Rooms(t.Context(), "", rooms+1)
		if err != nil || len(names) > left {
			t.Fatalf("cut %d: %d rooms, and %d before, %v", i, len(names), left, err)
		}
		left = len(names)
		if n, err := reopened.CountInvitations(t.Context(), "bob", "alice"); n != left || err != nil {
			t.Fatalf("cut %d: %d invitations to %d rooms, %v", i, n, left, err)
		}
		mustClose(t, reopened)
		if r := mustCheck(t, clone, "data"); r.Damaged() || r.Events != uint64(left)*32 {
			t.Fatalf("cut %d: %d rooms: %+v", i, left, r)
		}
	}
	if left != 0 {
		t.Errorf("%d rooms are left", left)
	}
}
