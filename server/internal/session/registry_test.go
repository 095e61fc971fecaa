package session_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reprise-chat/reprise/server/internal/session"
	"github.com/reprise-chat/reprise/server/internal/store"
	"github.com/reprise-chat/reprise/server/internal/store/pebble"
)

// holder is a live stream that records what it is told.
type holder struct {
	instance string
	answers  bool

	mu         sync.Mutex
	superseded bool
	same       bool
	ended      bool
	checkpoint string
	acks       uint64
}

func (h *holder) Instance() string { return h.instance }

func (h *holder) Probe() <-chan struct{} {
	c := make(chan struct{})
	if h.answers {
		close(c)
	}
	return c
}

func (h *holder) Supersede(_ uint64, same bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.superseded, h.same = true, same
}

func (h *holder) Ended() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
}

func (h *holder) Checkpointed(id string, acks uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checkpoint, h.acks = id, acks
}

func (h *holder) Live() bool { return true }

// open opens a store in memory and a registry over it, and returns what closes
// both.
func open(t *testing.T, fs vfs.FS) (*session.Registry, store.Store, func()) {
	t.Helper()
	st, err := pebble.Open("data", pebble.Options{FS: fs, Reserve: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	g := session.NewRegistry(st, session.Options{MaxPerUser: 3})
	return g, st, func() {
		g.Close(context.Background())
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A session resumes after years: time decides nothing.
func TestP8_YearsLater(t *testing.T) {
	g, st, closeAll := open(t, vfs.NewMem())
	h := new(holder)
	a, err := g.Create(t.Context(), h, "alice", 7, []store.Position{{Room: "lobby", Incarnation: "i_1", Offset: 5}}, false)
	if err != nil {
		t.Fatal(err)
	}
	id, key := a.Session.ID(), a.Key
	a.Detach(h)
	rec, err := st.Session(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	rec.Created, rec.Attached = rec.Created.AddDate(-50, 0, 0), rec.Attached.AddDate(-49, 0, 0)
	if err := st.PutSession(t.Context(), rec, nil); err != nil {
		t.Fatal(err)
	}
	g.Close(t.Context())
	g = session.NewRegistry(st, session.Options{})
	defer closeAll()
	defer g.Close(t.Context())
	c, fork, err := g.Resume(t.Context(), "alice", id, key, "", session.Fork)
	if err != nil || fork {
		t.Fatal(fork, err)
	}
	ps, err := c.Positions(t.Context())
	if err != nil || ps["lobby"].Offset != 5 || c.Seen() != 7 {
		t.Errorf("positions %v, seen %d, %v", ps, c.Seen(), err)
	}
	b, err := c.Commit(t.Context(), h, 7, nil, nil)
	if err != nil || b.Attach != 2 {
		t.Fatal(b, err)
	}
	b.Detach(h)
}

// A clock that was ahead, and then is set right, does not make the newest session
// the one that goes: the order of use is no clock's.
func TestP8_ClockStepEndsNoNewSession(t *testing.T) {
	g, st, closeAll := open(t, vfs.NewMem()) // three sessions a user
	defer closeAll()
	create := func() string {
		t.Helper()
		h := new(holder)
		a, err := g.Create(t.Context(), h, "alice", 0, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		a.Detach(h)
		return a.Session.ID()
	}
	var ids []string
	for range 2 {
		ids = append(ids, create())
		rec, err := st.Session(t.Context(), ids[len(ids)-1])
		if err != nil {
			t.Fatal(err)
		}
		rec.Attached, rec.Created = rec.Attached.AddDate(0, 0, 40), rec.Created.AddDate(0, 0, 40)
		if err := st.PutSession(t.Context(), rec, nil); err != nil {
			t.Fatal(err)
		}
	}
	ids = append(ids, create(), create()) // by a clock that is right again
	for i, id := range ids {
		_, err := st.Session(t.Context(), id)
		if gone := errors.Is(err, store.ErrNotFound); gone != (i == 0) {
			t.Errorf("session %d of 4, by use: gone %v", i, gone)
		}
	}
}

// A holder has two seconds to answer, and an acknowledgement that was accepted
// before the takeover is not lost by it.
func TestP5_TakeoverWaitsForTheHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _, closeAll := open(t, vfs.NewMem())
		defer closeAll()
		for _, answers := range []bool{false, true} {
			old := &holder{instance: "old", answers: answers}
			a, err := g.Create(t.Context(), old, "alice", 0, nil, false)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Session.Acknowledge(1, []store.Position{{Room: "lobby", Incarnation: "i_1", Offset: 9}}); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			c, fork, err := g.Resume(t.Context(), "alice", a.Session.ID(), a.Key, "new", session.Fork)
			if err != nil || fork != answers {
				t.Fatalf("answers %v: fork %v, %v", answers, fork, err)
			}
			if took, want := time.Since(began), 2*time.Second; !answers && took != want || answers && took != 0 {
				t.Errorf("answers %v: decided after %v", answers, took)
			}
			if fork {
				a.Detach(old)
				continue
			}
			if ps, err := c.Positions(t.Context()); err != nil || ps["lobby"].Offset != 9 {
				t.Errorf("positions %v, %v", ps, err)
			}
			b, err := c.Commit(t.Context(), &holder{}, 0, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Session.Acknowledge(1, nil); !errors.Is(err, session.ErrFenced) {
				t.Errorf("an old attachment acknowledges: %v", err)
			}
			if old.superseded {
				t.Error("the old holder was told before the new one is welcomed")
			}
			b.Welcomed()
			if !old.superseded || old.same {
				t.Error("the old holder was not told")
			}
			a.Detach(old)
			if h, err := b.Session.Holder(2); err != nil || h == nil {
				t.Errorf("the old holder's end detached the new one: %v", err)
			}
		}
	})
}

// A checkpoint covers the acknowledgements up to it and comes within a second.
func TestP13_CheckpointComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, st, closeAll := open(t, vfs.NewMem())
		defer closeAll()
		h := new(holder)
		a, err := g.Create(t.Context(), h, "alice", 0, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Detach(h)
		for offset := uint64(1); offset <= 100; offset++ {
			if err := a.Session.Acknowledge(1, []store.Position{{Room: "lobby", Incarnation: "i_1", Offset: offset}}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.acks != 100 || h.checkpoint == "" {
			t.Errorf("checkpoint %q of %d acknowledgements", h.checkpoint, h.acks)
		}
		if ps, err := st.Positions(t.Context(), a.Session.ID()); err != nil || len(ps) != 1 || ps[0].Offset != 100 {
			t.Errorf("stored %v, %v", ps, err)
		}
	})
}

// A session that is attached while room is made for another one stays.
func TestP7_MakingRoomSparesTheAttached(t *testing.T) {
	g, _, closeAll := open(t, vfs.NewMem())
	defer closeAll()
	for range 30 {
		var all []*session.Attached
		for range 3 {
			h := new(holder)
			a, err := g.Create(t.Context(), h, "alice", 0, nil, false)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, a)
			a.Detach(h)
		}
		back, fresh := new(holder), new(holder)
		var wg sync.WaitGroup
		wg.Go(func() {
			c, _, err := g.Resume(t.Context(), "alice", all[0].Session.ID(), all[0].Key, "", session.Fork)
			if errors.Is(err, session.ErrNotFound) {
				return // it made room first
			}
			if err != nil {
				t.Error(err)
				return
			}
			a, err := c.Commit(t.Context(), back, 0, nil, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer a.Detach(back)
		})
		wg.Go(func() {
			a, err := g.Create(t.Context(), fresh, "alice", 0, nil, false)
			if err != nil {
				t.Error(err)
				return
			}
			a.Detach(fresh)
		})
		wg.Wait()
		if back.ended || fresh.ended {
			t.Fatal("an attached session was ended")
		}
	}
}

// heldUp is a store in which one reading of a session takes long.
type heldUp struct {
	store.Store
	held    atomic.Bool
	reading chan struct{}
	goOn    chan struct{}
}

func (s *heldUp) Session(ctx context.Context, id string) (store.Session, error) {
	rec, err := s.Store.Session(ctx, id)
	if s.held.CompareAndSwap(false, true) {
		close(s.reading)
		<-s.goOn
	}
	return rec, err
}

// A session that is read while another stream attaches and leaves is met as it
// is then: neither client is told that it was taken over for good.
func TestP5_LoadingRacesAttaching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, st, closeAll := open(t, vfs.NewMem())
		defer closeAll()
		h := new(holder)
		a, err := first.Create(t.Context(), h, "alice", 0, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		id, key := a.Session.ID(), a.Key
		a.Detach(h)
		slow := &heldUp{Store: st, reading: make(chan struct{}), goOn: make(chan struct{})}
		g := session.NewRegistry(slow, session.Options{})
		defer g.Close(t.Context())
		comeAndGo := func() {
			c, fork, err := g.Resume(t.Context(), "alice", id, key, "", session.Fork)
			if err != nil || fork {
				t.Errorf("fork %v, %v", fork, err)
				return
			}
			h := new(holder)
			a, err := c.Commit(t.Context(), h, 0, nil, nil)
			if err != nil {
				t.Errorf("commit: %v", err)
				return
			}
			a.Detach(h)
		}
		var wg sync.WaitGroup
		wg.Go(comeAndGo)
		<-slow.reading
		wg.Go(comeAndGo)
		synctest.Wait() // the second one is through, or waits for the first
		close(slow.goOn)
		wg.Wait()
	})
}
