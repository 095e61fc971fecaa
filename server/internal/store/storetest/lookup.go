package storetest

import (
	"testing"

	"github.com/reprise-chat/reprise/server/internal/store"
)

func testLookup(t *testing.T, h Harness) {
	r, other := newRoom(t, h.Store, "r"), newRoom(t, h.Store, "other")
	first := r.publish("alice", "c1", "one")
	second := r.publish("alice", "c2", "two")
	third := r.publish("bob", "c1", "three")
	r.publish("carol", "", "without a client id")
	elsewhere := other.publish("dave", "c1", "four")
	for range 2 {
		r.lookup("alice", "c1", first)
		r.lookup("alice", "c2", second)
		r.lookup("bob", "c1", third)
		r.lookup("bob", "c2", 0)
		r.lookup("carol", "", 0)
		r.lookup("dave", "c1", 0)
		other.lookup("alice", "c1", 0)
		other.lookup("dave", "c1", elsewhere)
		s := h.Reopen()
		r.reopen(s)
		other.reopen(s)
	}
}

// testLookupExact has pairs that a careless key would take for one.
func testLookupExact(t *testing.T, h Harness) {
	r := newRoom(t, h.Store, "r")
	pairs := [][2]string{
		{"a", "bc"}, {"ab", "c"}, {"abc", "c"}, {"a", "b\x00c"}, {"a\x00b", "c"},
		{"a\x00", "bc"}, {"a\x01", "bc"}, {"\x01a", "bc"}, {"a", "\xffc"}, {"\xff", "c"},
	}
	for i, p := range pairs {
		e := store.Event{Encoded: message(t, r.head()+1, "u", "c", "text"), Sender: p[0], ClientID: p[1]}
		r.must(&store.Append{Expect: r.head(), Events: []store.Event{e}})
		for j, q := range pairs {
			want := uint64(0)
			if j <= i {
				want = uint64(j) + 2
			}
			r.lookup(q[0], q[1], want)
		}
	}
	// What is no longer retained is not found, however it was indexed.
	r.trim(store.Bounds{MaxEvents: 1})
	for i, p := range pairs {
		want := uint64(0)
		if i == len(pairs)-1 {
			want = r.head()
		}
		r.lookup(p[0], p[1], want)
	}
}
