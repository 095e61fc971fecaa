package limit_test

import (
	"errors"
	"fmt"
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
	l, g := limit.NewByKey("events", 0, 2), limit.NewGate(limit.GateOptions{})
	for range 1000 {
		if err := errors.Join(l.Allow("alice"), g.Enter(t.Context(), limit.Caller{User: "alice"})); err != nil {
			t.Fatal(err)
		}
	}
}
