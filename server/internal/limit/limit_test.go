package limit_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-chat/reprise/server/internal/limit"
)

func refused(t *testing.T, err error) time.Duration {
	t.Helper()
	var l *limit.Error
	if !errors.As(err, &l) {
		t.Fatalf("not refused with an Error: %v", err)
	}
	return l.RetryAfter
}

func TestByKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.NewByKey("events", 10, 3)
		for range 3 {
			if err := l.Allow("alice"); err != nil {
				t.Fatal(err)
			}
		}
		// Refusals take nothing: the slot named stays the same.
		for range 5 {
			if d := refused(t, l.Allow("alice")); d != 100*time.Millisecond {
				t.Fatalf("again in %v", d)
			}
		}
		if err := l.Allow("bob"); err != nil {
			t.Fatalf("one key's rate is another's: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
		if err := l.Allow("alice"); err != nil {
			t.Fatalf("in the slot that was named: %v", err)
		}
		refused(t, l.Allow("alice"))
		time.Sleep(time.Hour)
		for i := range 4 {
			if err := l.Allow("alice"); (err != nil) != (i == 3) {
				t.Fatalf("after an hour, number %d: %v", i, err)
			}
		}
	})
}

// TestByKeyForgets uses more keys than are remembered at once: an active one
// keeps its rate.
func TestByKeyForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.NewByKey("events", 1, 1)
		for i := range 5000 {
			_ = l.Allow("alice")
			if err := l.Allow(fmt.Sprint("key ", i)); err != nil {
				t.Fatal(err)
			}
			refused(t, l.Allow("alice"))
			time.Sleep(time.Millisecond)
		}
	})
}

func TestNoLimit(t *testing.T) {
	l, g := limit.NewByKey("events", 0, 2), limit.NewGate("clients", 0, 2, 0)
	for range 1000 {
		if err := errors.Join(l.Allow("alice"), g.Enter(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := limit.NewGate("clients attaching", 10, 2, 300*time.Millisecond)
		start := time.Now()
		var wg sync.WaitGroup
		waited := make(chan time.Duration, 10)
		for range 10 {
			wg.Go(func() {
				if err := g.Enter(t.Context()); err == nil {
					waited <- time.Since(start)
				} else if d := refused(t, err); d != 400*time.Millisecond {
					t.Errorf("told to come in %v", d)
				}
			})
		}
		wg.Wait()
		close(waited)
		var got []time.Duration
		for d := range waited {
			got = append(got, d)
		}
		const ms = time.Millisecond
		if want := fmt.Sprint([]time.Duration{0, 0, 100 * ms, 200 * ms, 300 * ms}); fmt.Sprint(got) != want {
			t.Errorf("admitted after %v, not %v", got, want)
		}
	})
}

// TestGateGivesUp: who goes away while waiting leaves the turn to others.
func TestGateGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := limit.NewGate("clients", 1, 1, time.Minute)
		if err := g.Enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := g.Enter(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("waited past the deadline: %v", err)
		}
		start := time.Now()
		if err := g.Enter(t.Context()); err != nil || time.Since(start) > time.Second {
			t.Fatalf("the turn given up is not there: %v after %v", err, time.Since(start))
		}
	})
}
