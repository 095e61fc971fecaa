package room

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reprise-chat/reprise/server/internal/store/pebble"
)

func strangersHub(t *testing.T) *Hub {
	t.Helper()
	st, err := pebble.Open("data", pebble.Options{FS: vfs.NewMem(), Reserve: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h := NewHub(st, Options{CreateOnJoin: true, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() {
		h.Close()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// TestStrangersLeaveNothing: names of rooms that do not exist, rooms that only
// strangers ask for, and the names of those strangers are kept no longer than
// the call takes.
func TestStrangersLeaveNothing(t *testing.T) {
	h := strangersHub(t)
	lobby, err := h.Acquire(t.Context(), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lobby.Join(t.Context(), "alice", Checks{}); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		stranger := fmt.Sprint("stranger", i)
		r, err := h.Acquire(t.Context(), fmt.Sprint("nowhere", i))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []*Room{r, lobby} {
			if err := r.Entitled(t.Context(), stranger); !errors.Is(err, ErrNotFound) {
				t.Fatalf("a stranger is told %v", err)
			}
			if _, err := r.Leave(t.Context(), stranger, Checks{}); !errors.Is(err, ErrNotFound) {
				t.Fatalf("a stranger is told %v", err)
			}
		}
		r.Release()
	}
	if len(h.rooms) != 1 {
		t.Errorf("%d rooms are in memory, and one is used", len(h.rooms))
	}
	if len(lobby.members) != 1 || len(lobby.claims) != 0 {
		t.Errorf("the room remembers %v and %v, and has one member", lobby.members, lobby.claims)
	}
	lobby.Release()

	other := h.reload(t, "lobby")
	if err := other.Entitled(t.Context(), "stranger"); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	other.Release()
	if len(h.rooms) != 0 {
		t.Error("a room that only a stranger asked for is in memory")
	}
	other = h.reload(t, "lobby")
	if err := other.Entitled(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	other.Release()
	if len(h.rooms) != 1 {
		t.Error("a room that its member asked for is forgotten at once")
	}
}

// reload forgets a room and acquires it again.
func (h *Hub) reload(t *testing.T, name string) *Room {
	t.Helper()
	h.mu.Lock()
	delete(h.rooms, name)
	h.mu.Unlock()
	r, err := h.Acquire(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestMembersOnceLeft: who leaves is forgotten, and whoever asks while members
// come and go is never told what was true before.
func TestMembersOnceLeft(t *testing.T) {
	h := strangersHub(t)
	r, err := h.Acquire(t.Context(), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	if _, err := r.Join(t.Context(), "alice", Checks{}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		user := fmt.Sprint("user", i)
		wg.Go(func() {
			for range 100 {
				if _, err := r.Join(t.Context(), user, Checks{}); err != nil {
					t.Error(err)
				}
				if err := r.Entitled(t.Context(), user); err != nil {
					t.Errorf("%s has joined and is told %v", user, err)
				}
				if _, err := r.Leave(t.Context(), user, Checks{}); err != nil {
					t.Error(err)
				}
				if err := r.Entitled(t.Context(), user); !errors.Is(err, ErrNotFound) {
					t.Errorf("%s has left and is told %v", user, err)
				}
			}
		})
		wg.Go(func() {
			for range 200 {
				_ = r.Entitled(t.Context(), user) // fills what the others must not be told
			}
		})
	}
	wg.Wait()
	if len(r.members) != 1 {
		t.Errorf("the room remembers %v", r.members)
	}
}
