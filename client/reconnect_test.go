package reprise

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

func TestJitterIsFullAndBounded(t *testing.T) {
	for n, bound := range map[int]time.Duration{
		1: 500 * time.Millisecond, 2: time.Second, 5: 8 * time.Second, 7: 20 * time.Second, 1000: 20 * time.Second,
	} {
		var sum, most time.Duration
		const tries = 2000
		for range tries {
			d := jitter(n, DefaultBackoffMin, DefaultBackoffMax)
			sum, most = sum+d, max(most, d)
		}
		if most > bound {
			t.Errorf("attempt %d: %v is over %v", n, most, bound)
		}
		if mean := sum / tries; mean < bound*4/10 || mean > bound*6/10 {
			t.Errorf("attempt %d: mean %v, want about half of %v", n, mean, bound)
		}
	}
}

// The wait grows while no server answers, and the addresses are tried in turn.
func TestReconnectTriesAddressesInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		var waits []time.Duration
		var attempts int
		cfg := f.config("one", "two", "three")
		cfg.OnState = func(s State) {
			if s.Phase == Waiting {
				waits, attempts = append(waits, time.Until(s.RetryAt)), s.Attempt
			}
		}
		c := f.client(cfg)
		r := start(t, c, &recorder{})
		time.Sleep(5 * time.Minute)
		f.mu.Lock()
		dials := strings.Join(f.dials[:6], " ")
		n := len(f.dials)
		f.mu.Unlock()
		want(t, "dials", dials, "one two three one two three")
		if n < 15 || n > 100 {
			t.Errorf("%d attempts in 5 minutes", n)
		}
		f.start("two")
		f.welcome(1)
		synctest.Wait()
		if got := c.State(); got.Address != "passthrough:///two" {
			t.Errorf("state: %+v", got)
		}
		r.stop()
		if attempts < 14 {
			t.Errorf("the state counts %d attempts", attempts)
		}
		for i, w := range waits {
			if bound := min(20*time.Second, 500*time.Millisecond<<min(i, 10)); w > bound {
				t.Errorf("wait %d is %v, over %v", i+1, w, bound)
			}
		}
	})
}

// A stream that is lost again and again does not make its client wait for long,
// whatever spread the server has asked for: at most a tenth of how long it has
// lived.
func TestFlappingLinkIsNotPunished(t *testing.T) {
	for _, lives := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t, "one")
			c := f.client(f.config("one"))
			start(t, c, &recorder{})
			var away time.Duration
			began := time.Now()
			for i := range 20 {
				before := time.Now()
				s := f.welcome(uint64(i+1), func(w *reprisev1.Welcome) { w.ResumeHint = durationpb.New(5 * time.Second) })
				away += time.Since(before)
				s.send(caughtUp("", "", 0))
				time.Sleep(lives)
				f.cut()
			}
			if all := time.Since(began); away > all/10 {
				t.Errorf("streams that live for %v: away for %v of %v", lives, away, all)
			}
		})
	}
}

// Only a stream that has lived forgives the attempts before it.
func TestAttemptsResetOnlyAfterAProvenStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		start(t, c, &recorder{})
		for i := range 6 {
			s := f.welcome(uint64(i + 1))
			s.send(caughtUp("", "", 0))
			synctest.Wait()
			s.end(unavailable)
		}
		s := f.accept()
		synctest.Wait()
		if got := c.State().Attempt; got != 7 {
			t.Errorf("attempt %d, want the 7th in a row", got)
		}
		s.welcome(9)
		s.send(caughtUp("", "", 0))
		time.Sleep(provenAfter)
		s.end(unavailable)
		before := time.Now()
		f.accept()
		if waited := time.Since(before); waited > DefaultBackoffMin {
			t.Errorf("waited %v after a proven stream", waited)
		}
	})
}

// What the server asks for goes before the client's own back-off.
func TestServerHintsGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		start(t, c, &recorder{})
		f.accept().end(refused(codes.ResourceExhausted, "RATE_LIMITED", 90*time.Second))
		before := time.Now()
		s := f.accept()
		if waited := time.Since(before); waited != 90*time.Second {
			t.Errorf("waited %v, want the 90s of RetryInfo", waited)
		}
		s.welcome(1, func(w *reprisev1.Welcome) { w.ResumeHint = durationpb.New(2 * time.Minute) })
		var longest time.Duration
		for i := range 12 {
			for range 61 { // it has lived for more than 20 minutes
				s.send(heartbeat())
				time.Sleep(20 * time.Second)
			}
			f.cut()
			before = time.Now()
			s = f.accept()
			longest = max(longest, time.Since(before))
			s.welcome(uint64(i+2), func(w *reprisev1.Welcome) { w.ResumeHint = durationpb.New(2 * time.Minute) })
		}
		if longest > 2*time.Minute || longest < 20*time.Second {
			t.Errorf("longest wait is %v, want it spread over the 2 minutes of resume_hint", longest)
		}
	})
}

func TestSilenceIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		start(t, c, &recorder{})
		s := f.welcome(1)
		for range 10 {
			time.Sleep(20 * time.Second)
			s.send(heartbeat())
			if f := s.recv(); f.GetAck() == nil || len(f.GetAck().GetPositions()) != 0 || f.GetRequestId() != "" {
				t.Errorf("answer to a heartbeat: %v", f)
			}
		}
		before := time.Now()
		<-s.gone
		if took := time.Since(before); took < 25*time.Second || took > 40*time.Second {
			t.Errorf("silence noticed after %v", took)
		}
		f.accept()
		if err := c.State().Err; !errors.Is(err, ErrSilent) {
			t.Errorf("state says %v", err)
		}
	})
}

// While a machine sleeps only its wall clock goes on.
func TestSilenceByWallClock(t *testing.T) {
	a := &attachment{welcome: &reprisev1.Welcome{}}
	now := time.Now()
	a.lastSeen = now
	if a.silent(now.Add(29 * time.Second)) {
		t.Error("silent too early")
	}
	if !a.silent(now.Add(31 * time.Second)) {
		t.Error("silence not noticed")
	}
	a.lastSeen = now.Round(0) // no monotonic reading: only the wall clock counts
	if !a.silent(now.Round(0).Add(time.Hour)) {
		t.Error("an hour of sleep not noticed")
	}
}

// P9: at its slot the client opens a second stream on a new connection while
// it reads the first one to its end, and hands over everything once.
func TestP9_DrainMovesWithoutAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one", "two")
		cfg := f.config("one", "two")
		phases := map[Phase]bool{}
		c := f.client(cfg)
		h := &recorder{}
		r := start(t, c, h)
		old := f.welcome(1)
		old.send(roomState("a", "i1", 0), caughtUp("", "", 0), events("a", "i1", 0, 1))
		old.ack()
		old.send(drain(30*time.Second, time.Minute))
		f.none(30*time.Second - 1)
		s := f.accept()
		phases[c.State().Phase] = true
		resume := s.first.GetResume()
		want(t, "position", named(resume.GetPositions())["a"], "i1/1")
		s.welcome(2)
		s.send(events("a", "i1", 1, 2, 3), caughtUp("a", "i1", 3), caughtUp("", "", 0), events("a", "i1", 3, 4))
		want(t, "handled while the old stream is open", h.take(), "a1")
		old.send(events("a", "i1", 1, 2, 3), moved())
		old.end(nil)
		want(t, "handled", h.take(), "a2 a3 a4")
		want(t, "acknowledged", s.ack()["a"], "i1/4")
		got := c.State()
		if got.Phase != Live || got.Attach != 2 || got.Duplicates != 2 || got.Address != "passthrough:///two" || phases[Waiting] {
			t.Errorf("state: %+v", got)
		}
		f.none(time.Second)
		s.serveBye()
		r.stop()
	})
}

// A client that cannot move stays on the old stream and tries again.
func TestDrainRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		h := &recorder{}
		start(t, c, h)
		old := f.welcome(1)
		old.send(roomState("a", "i1", 0), caughtUp("", "", 0), drain(0, time.Minute))
		f.accept().end(refused(codes.Unavailable, "DRAINING", 3*time.Second))
		old.send(events("a", "i1", 0, 1))
		want(t, "handled", h.take(), "a1")
		before := time.Now()
		s := f.accept()
		if waited := time.Since(before); waited != 3*time.Second {
			t.Errorf("tried again after %v", waited)
		}
		s.end(refused(codes.Unavailable, "DRAINING", 3*time.Second))
		synctest.Wait()
		old.end(refused(codes.Unavailable, "DRAINING", 2*time.Second))
		s = f.welcome(2)
		want(t, "position", named(s.first.GetResume().GetPositions())["a"], "i1/1")
	})
}

// An old stream that does not end is not waited for for ever.
func TestDrainGivesUpTheOldStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		h := &recorder{}
		start(t, c, h)
		old := f.welcome(1)
		old.send(roomState("a", "i1", 0), caughtUp("", "", 0), drain(0, time.Minute))
		s := f.welcome(2)
		s.send(events("a", "i1", 0, 1))
		<-old.gone
		want(t, "handled", h.take(), "a1r")
	})
}

// P5: a client that was taken over says so and never resumes by itself.
func TestP5_FencedIsTerminal(t *testing.T) {
	for name, end := range map[string]func(*fakeStream){
		"frame":  func(s *fakeStream) { s.send(fenced()) },
		"status": func(s *fakeStream) { s.end(refused(codes.FailedPrecondition, "FENCED", 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t, "one")
				c := f.client(f.config("one"))
				r := start(t, c, &recorder{})
				s := f.welcome(1)
				s.send(caughtUp("", "", 0))
				synctest.Wait()
				end(s)
				if err := r.wait(); !errors.Is(err, ErrFenced) {
					t.Errorf("Run: %v", err)
				}
				f.none(time.Hour)
				if _, err := c.Send(t.Context(), "a", "x"); !errors.Is(err, ErrFenced) {
					t.Errorf("Send: %v", err)
				}
				if got := c.State(); got.Phase != Closed || !errors.Is(got.Err, ErrFenced) {
					t.Errorf("state: %+v", got)
				}
				start(t, c, &recorder{}) // asked for, it tries again
				f.welcome(2)
			})
		})
	}
}

func TestFatalErrorsEndRun(t *testing.T) {
	for _, test := range []struct {
		err  error
		want error
	}{
		{refused(codes.PermissionDenied, "RESUME_KEY_NOT_YOURS", 0), ErrPermissionDenied},
		{refused(codes.InvalidArgument, "INVALID_FIELD", 0), ErrInvalid},
		{refused(codes.Unimplemented, "UNIMPLEMENTED", 0), nil},
		{refused(codes.ResourceExhausted, "TOO_MANY_SESSIONS", 0), ErrTooManySessions},
		{refused(codes.FailedPrecondition, "SESSION_HELD", 0), ErrSessionHeld},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t, "one")
			r := start(t, f.client(f.config("one")), &recorder{})
			f.accept().end(test.err)
			err := r.wait()
			var e *Error
			if !errors.As(err, &e) || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("Run: %v, want %v", err, test.want)
			}
			f.none(time.Hour)
		})
	}
}

func TestOtherErrorsAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		start(t, f.client(f.config("one")), &recorder{})
		for _, code := range []codes.Code{
			codes.Unavailable, codes.Internal, codes.Unknown, codes.Aborted, codes.ResourceExhausted,
			codes.DeadlineExceeded, codes.Canceled, codes.FailedPrecondition, codes.NotFound,
			codes.PermissionDenied, codes.Unauthenticated, codes.Unauthenticated, codes.Unimplemented, codes.InvalidArgument,
		} {
			f.accept().end(refused(code, "", 0))
		}
		foreign, _ := status.New(codes.PermissionDenied, "no").WithDetails(&errdetails.ErrorInfo{Reason: "IAM", Domain: "proxy.example"})
		f.accept().end(foreign.Err())
		f.accept().end(nil) // an end without a Welcome
		f.accept().send(heartbeat())
		f.accept() // and a first frame that is none
	})
}

// A token that was refused is fetched anew once; the second refusal is final.
func TestUnauthenticatedIsFatalAfterOneRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		cfg := f.config("one")
		tokens := 0
		cfg.Token = func(context.Context) (string, error) {
			tokens++
			return fmt.Sprint("t", tokens), nil
		}
		r := start(t, f.client(cfg), &recorder{})
		s := f.welcome(1)
		synctest.Wait()
		s.end(refused(codes.Unauthenticated, "TOKEN_INVALID", 0)) // it has expired
		s = f.welcome(2)
		synctest.Wait()
		s.end(refused(codes.Unauthenticated, "TOKEN_INVALID", 0))
		f.accept().end(refused(codes.Unauthenticated, "TOKEN_INVALID", 0))
		if err := r.wait(); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("Run: %v", err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		want(t, "tokens", strings.Join(f.tokens, " "), "Bearer t1 Bearer t2 Bearer t3")
	})
}

func TestFailingTokenSourceIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		cfg := f.config("one")
		fails := 3
		cfg.Token = func(context.Context) (string, error) {
			if fails--; fails >= 0 {
				return "", errors.New("vault is away")
			}
			return "t", nil
		}
		c := f.client(cfg)
		start(t, c, &recorder{})
		f.welcome(1)
	})
}

// A server that takes the stream and says nothing does not hold the client.
func TestAttachTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		start(t, f.client(f.config("one")), &recorder{})
		s := f.accept()
		<-s.gone
		f.accept()
	})
}

// Run ends at once wherever it is.
func TestRunEndsInEveryPhase(t *testing.T) {
	for name, reach := range map[string]func(*fake){
		"connecting": func(f *fake) { f.accept() },
		"waiting":    func(f *fake) { f.accept().end(refused(codes.Unavailable, "", 4*time.Minute)); synctest.Wait() },
		"live":       func(f *fake) { f.welcome(1).serveBye(); synctest.Wait() },
		"draining": func(f *fake) {
			s := f.welcome(1)
			s.send(drain(0, time.Minute))
			f.accept()
			s.serveBye()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t, "one")
				c := f.client(f.config("one"))
				r := start(t, c, &recorder{})
				reach(f)
				before := time.Now()
				r.stop()
				if took := time.Since(before); took > 0 {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

func TestOnStateEndsWithClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		cfg := f.config("one")
		var phases []string
		cfg.OnState = func(s State) {
			if n := len(phases); n == 0 || phases[n-1] != s.Phase.String() {
				phases = append(phases, s.Phase.String())
			}
		}
		r := start(t, f.client(cfg), &recorder{})
		s := f.accept()
		synctest.Wait()
		s.welcome(1)
		synctest.Wait()
		s.send(caughtUp("", "", 0))
		synctest.Wait()
		f.cut()
		synctest.Wait()
		s = f.welcome(2)
		s.serveBye()
		synctest.Wait()
		r.stop()
		want(t, "phases", strings.Join(phases, " "), "connecting replaying live waiting connecting replaying closed")
	})
}
