package reprise

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// refused is a status with an ErrorInfo and, if after is not 0, a RetryInfo.
func refused(code codes.Code, reason string, after time.Duration) error {
	s, _ := status.New(code, "no").WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "reprise.chat"})
	if after > 0 {
		s, _ = s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	}
	return s.Err()
}

func TestRunDeliversInOrderAndAcknowledges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		h := &fullRecorder{}
		r := start(t, c, h)
		s := f.welcome(1, func(w *reprisev1.Welcome) { w.Rooms, w.EventsToReplay = 2, 2 })
		if s.first.GetOpen().GetWindow() != DefaultWindow || s.first.GetOpen().GetInstanceId() == "" {
			t.Errorf("open: %v", s.first)
		}
		s.send(roomState("a", "i1", 3), roomState("b", "i1", 0))
		s.send(events("a", "i1", 3, 4, 6), caughtUp("a", "i1", 6))
		synctest.Wait()
		if got := c.State(); got.Phase != Replaying || got.Replayed != 2 || got.Rooms != 2 || got.Outcome != OutcomeNew {
			t.Errorf("state: %+v", got)
		}
		s.send(caughtUp("", "", 0), events("b", "i1", 0, 1))
		want(t, "handled", h.take(), "room:a3 room:b0 a4r a6r caughtup:a caughtup: b1")
		if got := c.State(); got.Phase != Live {
			t.Errorf("state: %+v", got)
		}
		acks := s.ack()
		if acks["a"] != "i1/6" || acks["b"] != "i1/1" || len(acks) != 2 {
			t.Errorf("acknowledged %v", acks)
		}
		s.send(roomClosed("b"))
		want(t, "handled", h.take(), "closed:b/LEFT/bob7")
		if got := c.State().Rooms; got != 1 {
			t.Errorf("%d rooms after one of two was closed", got)
		}
		s.serveBye()
		r.stop()
		if got := c.State(); got.Phase != Closed || got.Err != nil {
			t.Errorf("state: %+v", got)
		}
	})
}

func TestReconnectNamesHandledPositions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		h := &recorder{}
		start(t, c, h)
		s := f.welcome(1)
		s.send(roomState("a", "i1", 0), caughtUp("", "", 0), events("a", "i1", 0, 1, 2))
		synctest.Wait() // handled, but neither saved nor acknowledged yet
		f.cut()
		s = f.accept()
		resume := s.first.GetResume()
		if resume.GetSessionId() != "s_1" || resume.GetResumeKey() != "rk_1" || resume.GetCheckpoint() != "" {
			t.Errorf("resume: %v", resume)
		}
		want(t, "position", named(resume.GetPositions())["a"], "i1/2")
		s.welcome(2)
		s.send(events("a", "i1", 2, 3), caughtUp("a", "i1", 3), caughtUp("", "", 0), events("a", "i1", 3, 4))
		want(t, "handled", h.take(), "a1 a2 a3r a4")
	})
}

// A client that was welcomed, but did not get to know, resumes with the key it
// has.
func TestLostWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		start(t, c, &recorder{})
		f.welcome(1).send(caughtUp("", "", 0))
		synctest.Wait()
		f.cut()
		for range 3 {
			s := f.accept()
			want(t, "key", s.first.GetResume().GetResumeKey(), "rk_1")
			f.cut()
		}
		f.welcome(5)
		synctest.Wait()
		f.cut()
		want(t, "key", f.accept().first.GetResume().GetResumeKey(), "rk_5")
	})
}

func TestCheckpointShortensTheResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		start(t, c, &recorder{})
		s := f.welcome(1)
		s.send(roomState("a", "i1", 0), roomState("b", "i1", 5), roomState("c", "i1", 9), caughtUp("", "", 0))
		s.send(events("a", "i1", 0, 1), events("b", "i1", 5, 6))
		s.ack()
		s.send(events("b", "i1", 6, 7))
		s.ack()
		s.send(checkpoint("cp_1", 1)) // without the second acknowledgement
		synctest.Wait()
		f.cut()
		s = f.accept()
		resume := s.first.GetResume()
		want(t, "checkpoint", resume.GetCheckpoint(), "cp_1")
		if got := named(resume.GetPositions()); len(got) != 1 || got["b"] != "i1/7" {
			t.Errorf("named %v, want only b, which moved", got)
		}
		s.end(refused(codes.FailedPrecondition, "POSITIONS_NEEDED", 0))
		before := time.Now()
		s = f.accept()
		if waited := time.Since(before); waited != 0 {
			t.Errorf("asked again after %v, want at once", waited)
		}
		resume = s.first.GetResume()
		want(t, "checkpoint", resume.GetCheckpoint(), "")
		got := named(resume.GetPositions())
		if len(got) != 3 || got["a"] != "i1/1" || got["b"] != "i1/7" || got["c"] != "i1/9" {
			t.Errorf("named %v, want all", got)
		}
		// The positions named are stored with the next checkpoint.
		s.welcome(2)
		s.send(checkpoint("cp_9", 0))
		synctest.Wait()
		f.cut()
		if resume := f.accept().first.GetResume(); resume.GetCheckpoint() != "cp_9" || len(resume.GetPositions()) != 0 {
			t.Errorf("resume: %v", resume)
		}
	})
}

func TestForkAndRebuildAreSurfacedAndForgetTheCheckpoint(t *testing.T) {
	for outcome, name := range map[reprisev1.Outcome]Outcome{
		reprisev1.Outcome_OUTCOME_FORKED: OutcomeForked, reprisev1.Outcome_OUTCOME_REBUILT: OutcomeRebuilt,
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t, "one")
			c := f.client(f.config("one"))
			start(t, c, &recorder{})
			s := f.welcome(1)
			s.send(roomState("a", "i1", 4), checkpoint("cp_1", 0))
			synctest.Wait()
			f.cut()
			f.welcome(1, func(w *reprisev1.Welcome) { w.SessionId, w.Outcome = "s_2", outcome })
			synctest.Wait()
			if got := c.State(); got.Outcome != name || got.SessionID != "s_2" {
				t.Errorf("state: %+v", got)
			}
			f.cut()
			resume := f.accept().first.GetResume()
			if resume.GetSessionId() != "s_2" || resume.GetCheckpoint() != "" || named(resume.GetPositions())["a"] != "i1/4" {
				t.Errorf("resume: %v", resume)
			}
		})
	}
}

// A hole between two events is never papered over: the stream is dropped and
// everything is named.
func TestP2_HoleDropsTheStream(t *testing.T) {
	for name, bad := range map[string]*reprisev1.ServerFrame{
		"event":         events("a", "i1", 3, 4),
		"inside":        events("a", "i1", 1, 2, 3),
		"other history": events("a", "i2", 0, 1),
		"unknown room":  events("z", "i1", 0, 1),
		"gap":           gapFrame("a", "i1", 4, 5),
		"rewind":        rewindFrame("a", "i1", 9),
		"caught up":     caughtUp("a", "i1", 3),
		"start":         roomState("a", "i1", 3),
		"backwards":     events("a", "i2", 2, 2),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if name == "inside" {
					bad.GetEvents().GetEvents()[1].After = 1
				}
				f := newFake(t, "one")
				c := f.client(f.config("one"))
				h := &recorder{}
				start(t, c, h)
				s := f.welcome(1)
				s.send(roomState("a", "i1", 0), events("a", "i1", 0, 1), checkpoint("cp_1", 0))
				synctest.Wait()
				s.trySend(events("a", "i1", 1, 2), bad, events("a", "i1", 2, 3), caughtUp("", "", 0))
				synctest.Wait()
				<-s.gone
				if err := c.State().Err; !errors.Is(err, ErrProtocol) {
					t.Errorf("state says %v, want ErrProtocol", err)
				}
				if c.State().Phase == Live {
					t.Error("caught up by a broken stream")
				}
				resume := f.accept().first.GetResume()
				if resume.GetCheckpoint() != "" || named(resume.GetPositions())["a"] != "i1/2" {
					t.Errorf("resume: %v", resume)
				}
				want(t, "handled", h.take(), "a1r a2r")
			})
		})
	}
}

func TestDuplicatesAreDroppedCountedAndAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		h := &recorder{}
		start(t, c, h)
		s := f.welcome(1)
		s.send(roomState("a", "i1", 0), caughtUp("", "", 0), events("a", "i1", 0, 1, 2), events("a", "i2", 2, 3))
		s.ack()
		f.cut()
		s = f.welcome(2)
		s.send(roomState("a", "i1", 0), events("a", "i1", 0, 1, 2), events("a", "i2", 2, 3, 4), gapFrame("a", "i2", 2, 4))
		want(t, "handled", h.take(), "a1 a2 a3 a4r")
		want(t, "acknowledged", s.ack()["a"], "i2/4")
		if got := c.State().Duplicates; got != 3 {
			t.Errorf("counted %d duplicates, want 3", got)
		}
	})
}

func TestGapsAreHandedOverKeptAndAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		store := NewMemoryStore()
		cfg := f.config("one")
		cfg.Positions = store
		c := f.client(cfg)
		h := &recorder{}
		start(t, c, h)
		s := f.welcome(1)
		s.send(roomState("a", "", 0), gapFrame("a", "i1", 1, 7), events("a", "i1", 7, 9), caughtUp("a", "i1", 9))
		want(t, "handled", h.take(), "gap:a1-7 a9r")
		want(t, "acknowledged", s.ack()["a"], "i1/9")
		saved, _ := store.Load(t.Context())
		if len(saved.Places) != 1 || len(saved.Places[0].Gaps) != 1 || saved.Places[0].Gaps[0].Last != 7 {
			t.Errorf("saved %+v", saved)
		}

		f.listEvents = func(_ context.Context, r *reprisev1.ListEventsRequest) (*reprisev1.ListEventsResponse, error) {
			switch r.GetAfter() {
			case 0:
				return &reprisev1.ListEventsResponse{Stretches: []*reprisev1.Events{events("a", "i1", 0, 1, 2, 3).GetEvents()}, More: true}, nil
			case 3, 4:
				return &reprisev1.ListEventsResponse{Stretches: []*reprisev1.Events{events("a", "i1", 3, 4, 5, 7).GetEvents()}}, nil
			}
			t.Errorf("list: %v", r)
			return nil, unavailable
		}
		for e, err := range c.FetchGap(t.Context(), c.Gaps()[0]) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Offset == 5 {
				break // 4 was consumed, 5 was not
			}
		}
		if gaps := c.Gaps(); len(gaps) != 1 || gaps[0].First != 5 {
			t.Fatalf("open gaps: %v", gaps)
		}
		f.listEvents = func(_ context.Context, r *reprisev1.ListEventsRequest) (*reprisev1.ListEventsResponse, error) {
			if r.GetAfter() != 4 || r.GetBefore() != 8 {
				t.Errorf("list: %v", r)
			}
			return &reprisev1.ListEventsResponse{Stretches: []*reprisev1.Events{events("a", "i1", 4, 5, 7).GetEvents()}}, nil
		}
		var got []uint64
		for e, err := range c.FetchGap(t.Context(), c.Gaps()[0]) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e.Offset)
		}
		if len(got) != 2 || len(c.Gaps()) != 0 {
			t.Errorf("fetched %v, open %v", got, c.Gaps())
		}
	})
}

func TestRewind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		h := &recorder{}
		start(t, c, h)
		s := f.welcome(1)
		s.send(roomState("a", "i1", 0), caughtUp("", "", 0), events("a", "i1", 0, 1, 2), events("a", "i2", 2, 3), events("a", "i3", 3, 4))
		s.ack()
		f.cut()
		s = f.accept()
		p := s.first.GetResume().GetPositions()[0]
		if p.GetOffset() != 4 || len(p.GetEarlier()) != 2 || p.GetEarlier()[0].GetOffset() != 3 || p.GetEarlier()[1].GetIncarnation() != "i1" {
			t.Errorf("named %v", p)
		}
		s.welcome(2)
		s.send(rewindFrame("a", "i1", 1), events("a", "i4", 1, 2, 3), caughtUp("a", "i4", 3))
		want(t, "handled", h.take(), "a1 a2 a3 a4 rewind:a1 a2r a3r")
		want(t, "acknowledged", s.ack()["a"], "i4/3")
		f.cut()
		p = f.accept().first.GetResume().GetPositions()[0]
		if p.GetIncarnation() != "i4" || p.GetOffset() != 3 || len(p.GetEarlier()) != 1 || p.GetEarlier()[0].GetOffset() != 1 {
			t.Errorf("named %v", p)
		}
	})
}

func TestHandlerErrorEndsRunWithoutAcknowledging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		broken := errors.New("disk full")
		h := &recorder{fail: map[uint64]error{3: broken}}
		r := start(t, c, h)
		s := f.welcome(1)
		s.send(roomState("a", "i1", 0), caughtUp("", "", 0), events("a", "i1", 0, 1, 2, 3, 4))
		want(t, "acknowledged", s.ack()["a"], "i1/2")
		if f := s.recv(); f.GetBye() == nil || f.GetBye().GetEndSession() {
			t.Errorf("got %v, want a goodbye", f)
		}
		s.end(nil)
		if err := r.wait(); !errors.Is(err, broken) {
			t.Errorf("Run: %v", err)
		}
		if got := c.State(); got.Phase != Closed || !errors.Is(got.Err, broken) {
			t.Errorf("state: %+v", got)
		}
		// The next Run gets it again, and goes on.
		h.fail = nil
		start(t, c, h)
		s = f.accept()
		want(t, "position", named(s.first.GetResume().GetPositions())["a"], "i1/2")
		s.welcome(2)
		s.send(events("a", "i1", 2, 3, 4))
		want(t, "handled", h.take(), "a1 a2 a3r a4r")
	})
}

// An error of the handler's own that looks like a context's is still an error.
func TestHandlerTimeoutIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		r := start(t, c, &recorder{fail: map[uint64]error{1: context.DeadlineExceeded}})
		s := f.welcome(1)
		s.send(roomState("a", "i1", 0), events("a", "i1", 0, 1))
		s.serveBye()
		if err := r.wait(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestEphemeralEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		cfg := f.config("one")
		cfg.Ephemeral = true
		c := f.client(cfg)
		r := start(t, c, &recorder{})
		s := f.welcome(1)
		synctest.Wait()
		r.cancel()
		if f := s.recv(); !f.GetBye().GetEndSession() {
			t.Errorf("got %v", f)
		}
		s.end(nil)
		if err := r.wait(); err != nil {
			t.Error(err)
		}
	})
}

// A server that does not answer the goodbye does not keep Run.
func TestGoodbyeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		r := start(t, c, &recorder{})
		f.welcome(1)
		synctest.Wait()
		before := time.Now()
		r.stop()
		if took := time.Since(before); took > goodbyeTimeout {
			t.Errorf("took %v", took)
		}
	})
}

func TestOneRunAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		start(t, c, &recorder{})
		s := f.welcome(1)
		s.serveBye()
		synctest.Wait()
		if err := c.Run(t.Context(), &recorder{}); !errors.Is(err, ErrRunning) {
			t.Errorf("got %v", err)
		}
		c.Close()
		if err := c.Run(t.Context(), &recorder{}); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

// What a gap repeats of what is held is taken off it.
func TestGapIsClippedToWhatIsNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		h := &recorder{}
		start(t, c, h)
		s := f.welcome(1)
		s.send(roomState("a", "i1", 0), events("a", "i1", 0, 1, 2), gapFrame("a", "i1", 2, 7), events("a", "i1", 7, 8))
		want(t, "handled", h.take(), "a1r a2r gap:a3-7 a8r")
	})
}

// A room that the server cannot read for a while is told, counts once, and goes
// on where it was.
func TestUnavailableRooms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		h := &fullRecorder{}
		start(t, c, h)
		s := f.welcome(1, func(w *reprisev1.Welcome) { w.Rooms = 2 })
		s.send(roomState("a", "i1", 0), roomUnavailable("b"), caughtUp("a", "i1", 0), caughtUp("", "", 0))
		s.send(events("a", "i1", 0, 1))
		want(t, "handled", h.take(), "room:a0 unavailable:b/ROOM_UNAVAILABLE caughtup:a caughtup: a1")
		s.send(roomState("b", "i1", 3), events("b", "i1", 3, 4), caughtUp("b", "i1", 4), events("b", "i1", 4, 5))
		want(t, "handled", h.take(), "room:b3 b4r caughtup:b b5")
		s.send(roomUnavailable("a"))
		s.send(roomState("a", "i1", 1), events("a", "i1", 1, 2), caughtUp("a", "i1", 2))
		want(t, "handled", h.take(), "unavailable:a/ROOM_UNAVAILABLE room:a1 a2r caughtup:a")
		if got := c.State(); got.Rooms != 2 || got.Phase != Live {
			t.Errorf("state: %+v", got)
		}
	})
}

func roomUnavailable(room string) *reprisev1.ServerFrame {
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_RoomUnavailable{
		RoomUnavailable: &reprisev1.RoomUnavailable{Room: room, Reason: "ROOM_UNAVAILABLE"},
	}}
}
