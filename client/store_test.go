package reprise

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// ledgerDB stands for a program's database: a transaction changes the lines
// and the position together.
type ledgerDB struct {
	lines     []string
	positions map[string]Position
}

func (db *ledgerDB) load(context.Context) ([]Position, error) {
	var all []Position
	for _, p := range db.positions {
		all = append(all, p)
	}
	return all, nil
}

func (db *ledgerDB) handler() *startRecorder {
	h := &startRecorder{db: db}
	h.call = func(e Event) error {
		db.lines = append(db.lines, e.Text())
		db.positions[e.Room] = e.Position()
		return nil
	}
	return h
}

// startRecorder keeps the starts of rooms as well.
type startRecorder struct {
	recorder
	db *ledgerDB
}

func (h *startRecorder) HandleStart(_ context.Context, p Position) error {
	h.note("start:%s%d", p.Room, p.Offset)
	h.db.positions[p.Room] = p
	return nil
}

func (h *startRecorder) HandleGap(ctx context.Context, g Gap) error {
	h.db.positions[g.Room] = g.Position()
	return h.recorder.HandleGap(ctx, g)
}

// P2 for the program's own transaction: it is killed after the transaction and
// before anything else; no event takes effect twice, none is left out, whether
// the session survived or not.
func TestP2_HandlerStoreIsExactlyOnce(t *testing.T) {
	for _, keepsSession := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t, "one")
			db := &ledgerDB{positions: map[string]Position{}}
			rest := &countingStore{PositionStore: NewMemoryStore()}
			cfg := f.config("one")
			cfg.Positions = HandlerStore(db.load, rest)
			h := db.handler()
			killed := errors.New("killed")
			inTransaction := h.call
			h.call = func(e Event) error {
				err := inTransaction(e)
				if e.Offset == 3 {
					return killed // the client never learns that 3 was handled
				}
				return err
			}
			r := start(t, f.client(cfg), h)
			s := f.accept()
			if r := s.first.GetResume(); r == nil || r.GetSessionId() != "" || r.GetResumeKey() != "" || len(r.GetPositions()) != 0 {
				t.Errorf("first frame %v, want a resume without a session, so that nothing is left out", s.first)
			}
			s.welcome(1)
			s.send(roomState("a", "i1", 0), caughtUp("", "", 0), events("a", "i1", 0, 1), events("a", "i2", 1, 2, 3, 4))
			s.serveBye()
			if err := r.wait(); !errors.Is(err, killed) {
				t.Fatal(err)
			}
			if rest.saves != 1 {
				t.Errorf("%d saves beside the handler's own, want one for the session", rest.saves)
			}

			if !keepsSession {
				rest.PositionStore = NewMemoryStore()
			}
			cfg.Positions = HandlerStore(db.load, rest)
			start(t, f.client(cfg), db.handler())
			s = f.accept()
			if !keepsSession {
				want(t, "session", s.first.GetResume().GetSessionId()+s.first.GetResume().GetResumeKey(), "")
			}
			resume := s.first.GetResume()
			p := resume.GetPositions()
			if len(p) != 1 || p[0].GetOffset() != 3 || p[0].GetIncarnation() != "i2" || p[0].GetEarlier()[0].GetOffset() != 1 || resume.GetCheckpoint() != "" {
				t.Errorf("resume: %v", resume)
			}
			s.welcome(2)
			s.send(events("a", "i2", 3, 4, 5))
			synctest.Wait()
			want(t, "lines", fmt.Sprint(db.lines), "[text 1 text 2 text 3 text 4 text 5]")
		})
	}
}

type countingStore struct {
	PositionStore
	saves int
	fail  error
}

func (c *countingStore) Save(ctx context.Context, u Update) error {
	if c.saves++; c.fail != nil {
		return c.fail
	}
	return c.PositionStore.Save(ctx, u)
}

// An open gap is part of the positions that the program keeps, so it survives
// the program, until it was fetched.
func TestHandlerStoreKeepsGapsInPositions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		f.listEvents = func(_ context.Context, r *reprisev1.ListEventsRequest) (*reprisev1.ListEventsResponse, error) {
			return &reprisev1.ListEventsResponse{Head: 9, Oldest: 9}, nil // it was removed meanwhile
		}
		db := &ledgerDB{positions: map[string]Position{}}
		cfg := f.config("one")
		cfg.Positions = HandlerStore(db.load, nil)
		h := db.handler()
		c := f.client(cfg)
		r := start(t, c, h)
		s := f.welcome(1)
		s.serveBye()
		s.send(roomState("a", "", 0), gapFrame("a", "i1", 1, 7), events("a", "i1", 7, 8), caughtUp("", "", 0))
		want(t, "handled", h.take(), "start:a0 gap:a1-7 a8r")
		r.stop()

		for round := range 3 { // with the gap open, and when it was fetched
			cfg.Positions = HandlerStore(db.load, nil)
			c, h = f.client(cfg), db.handler()
			r = start(t, c, h)
			s = f.accept()
			want(t, "named", fmt.Sprint(named(s.first.GetResume().GetPositions())), fmt.Sprintf("map[a:i1/%d]", 8+round))
			s.welcome(uint64(2 + round))
			s.serveBye()
			synctest.Wait()
			if gaps := c.Gaps(); round < 2 && (len(gaps) != 1 || gaps[0].First != 1 || gaps[0].Last != 7) || round == 2 && len(gaps) != 0 {
				t.Errorf("round %d: open gaps %v", round, gaps)
			}
			if round == 1 {
				for _, err := range c.FetchGap(t.Context(), c.Gaps()[0]) {
					if err != nil {
						t.Error(err)
					}
				}
			}
			s.send(events("a", "i1", uint64(8+round), uint64(9+round)))
			synctest.Wait()
			r.stop()
		}
	})
}

// A handler that cannot keep where a room starts is refused, rather than losing
// what happens in a room before its first event.
func TestHandlerStoreNeedsAStartHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		cfg := f.config("one")
		cfg.Positions = HandlerStore((&ledgerDB{}).load, nil)
		if err := f.client(cfg).Run(t.Context(), &recorder{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("Run: %v, want ErrInvalid", err)
		}
	})
}

// A session that was saved before its rooms were handed over, and then resumed:
// the server names no room that has not moved, so the first event of one says
// where it begins. The stream goes on.
func TestP2_UnnamedRoomBeginsWithItsFirstEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		rest := NewMemoryStore()
		if err := rest.Save(t.Context(), Update{Session: &SessionKey{ID: "s_1", ResumeKey: "rk_1"}}); err != nil {
			t.Fatal(err)
		}
		db := &ledgerDB{positions: map[string]Position{}}
		cfg := f.config("one")
		cfg.Positions = HandlerStore(db.load, rest)
		h := db.handler()
		c := f.client(cfg)
		start(t, c, h)
		s := f.welcome(2)
		s.send(caughtUp("", "", 0), events("a", "i1", 6, 7, 8), gapFrame("b", "i1", 4, 5), roomClosed("a"))
		want(t, "handled", h.take(), "start:a6 a7 a8 start:b3 gap:b4-5")
		if err := c.State().Err; err != nil {
			t.Errorf("the stream was dropped: %v", err)
		}
		s.trySend(events("a", "i1", 8, 9)) // after it was closed it is not ours
		<-s.gone
	})
}

// What could not be saved is not acknowledged, and Run says so.
func TestFailingStoreEndsRunWithoutAcknowledging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		store := &countingStore{PositionStore: NewMemoryStore()}
		cfg := f.config("one")
		cfg.Positions = store
		r := start(t, f.client(cfg), &recorder{})
		s := f.welcome(1)
		synctest.Wait()
		store.fail = errors.New("disk full")
		s.send(roomState("a", "i1", 0), caughtUp("", "", 0), events("a", "i1", 0, 1))
		if frame := s.recv(); frame.GetBye() == nil {
			t.Errorf("got %v before the goodbye", frame)
		}
		s.end(nil)
		if err := r.wait(); !errors.Is(err, store.fail) {
			t.Errorf("Run: %v", err)
		}
	})
}

// The new resume key is on disk before the attachment is used.
func TestResumeKeyIsSavedBeforeItIsProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		store := NewMemoryStore()
		slow := &slowStore{PositionStore: store, gate: make(chan struct{})}
		cfg := f.config("one")
		cfg.Positions = slow
		c := f.client(cfg)
		start(t, c, &recorder{})
		p := send(t.Context(), c, "x")
		s := f.welcome(1)
		s.send(heartbeat())
		s.idle()
		close(slow.gate)
		s.recv()
		if saved, _ := store.Load(t.Context()); saved.Session.ResumeKey != "rk_1" {
			t.Errorf("saved %+v", saved)
		}
		f.servers["one"].Stop()
		c.Close()
		<-p.done
	})
}

// slowStore holds the save of a session.
type slowStore struct {
	PositionStore
	gate chan struct{}
}

func (s *slowStore) Save(ctx context.Context, u Update) error {
	if u.Session != nil {
		<-s.gate
	}
	return s.PositionStore.Save(ctx, u)
}

func TestPositionKeepsEarlierStretches(t *testing.T) {
	var p Position
	for i := range 12 {
		p = p.advance(fmt.Sprint("i", i), uint64(10*i+10))
	}
	if len(p.Earlier) != maxEarlier || p.Earlier[0] != (Stretch{"i10", 110}) || p.Earlier[7] != (Stretch{"i3", 40}) {
		t.Errorf("earlier: %v", p.Earlier)
	}
	for _, test := range []struct {
		incarnation string
		offset      uint64
		held        bool
	}{{"i11", 120, true}, {"i11", 121, false}, {"i5", 60, true}, {"i5", 61, false}, {"other", 1, false}} {
		if got := p.holds(test.incarnation, test.offset); got != test.held {
			t.Errorf("holds %s/%d: %v", test.incarnation, test.offset, got)
		}
	}
	back := p.rewind("i5", 55)
	if back.Offset != 55 || !slices.Equal(back.Earlier, []Stretch{{"i4", 50}, {"i3", 40}}) {
		t.Errorf("rewound to %+v", back)
	}
	if back := p.rewind("unknown", 95); back.Earlier[0] != (Stretch{"i8", 90}) {
		t.Errorf("rewound to %+v", back)
	}
	if back := p.rewind("", 0); back.Offset != 0 || back.Earlier != nil {
		t.Errorf("rewound to %+v", back)
	}
	if again := back.advance("i5", 57); again.Earlier[0] != (Stretch{"i4", 50}) {
		t.Errorf("advanced to %+v", again)
	}
}

// Killed after saving and before acknowledging, a process with a file goes on
// after what is saved, and names only that if the server has the rest.
func TestFileStoreAcrossProcesses(t *testing.T) {
	path := t.TempDir() + "/positions"
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		for round := range 3 {
			store, err := OpenFile(path)
			if err != nil {
				t.Fatal(err)
			}
			cfg := f.config("one")
			cfg.Positions = store
			c := f.client(cfg)
			h := &recorder{}
			r := start(t, c, h)
			s := f.accept()
			switch round {
			case 0:
				s.welcome(1)
				s.send(roomState("a", "i1", 0), roomState("b", "i1", 0), caughtUp("", "", 0), events("a", "i1", 0, 1), events("b", "i1", 0, 1))
				s.ack()
				s.send(checkpoint("cp_1", 1), events("a", "i1", 1, 2))
				s.recv() // saved; not accepted
				want(t, "handled", h.take(), "a1 b1 a2")
			case 1, 2:
				resume := s.first.GetResume()
				got := named(resume.GetPositions())
				if len(got) != 1 || got["a"] != "i1/2" || resume.GetCheckpoint() != "cp_1" || resume.GetSessionId() != "s_1" {
					t.Errorf("resume: %v", resume)
				}
				s.welcome(uint64(round + 1))
				s.send(caughtUp("", "", 0))
			}
			s.serveBye()
			r.stop()
			c.Close()
			store.Close()
		}
	})
}
