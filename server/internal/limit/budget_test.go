package limit

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget("bytes", 100, 50, time.Second)
		ctx := t.Context()
		must := func(key string, n int) *Lease {
			t.Helper()
			l, err := b.Acquire(ctx, key, n)
			if err != nil {
				t.Fatal(err)
			}
			return &l
		}
		first := must("a", 50)
		began := time.Now()
		_, err := b.Acquire(ctx, "a", 1) // more than its part
		var limited *Error
		if !errors.As(err, &limited) || limited.RetryAfter != time.Second || time.Since(began) != time.Second {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		// One that waits for its own part holds up nobody else.
		var wg sync.WaitGroup
		wg.Go(func() { must("a", 1000).Release() }) // more than there can be: its whole part
		synctest.Wait()
		must("b", 50).Release()
		other := must("b", 40)
		first.Release()
		first.Release() // does nothing
		wg.Wait()
		if b.Used() != 40 {
			t.Fatalf("%d are held, not 40", b.Used())
		}
		other.Release()
		if b.Used() != 0 || len(b.keys) != 0 || b.waiting.Len() != 0 {
			t.Errorf("%d are held, by %v; %d wait", b.Used(), b.keys, b.waiting.Len())
		}
	})
}

// TestBudgetInOrder: small ones do not starve a large one that waits for the
// total, and one that gives up lets those behind it go on.
func TestBudgetInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget("bytes", 100, 100, time.Minute)
		held, err := b.Acquire(t.Context(), "a", 60)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		large := make(chan error)
		go func() { _, err := b.Acquire(ctx, "b", 80); large <- err }()
		synctest.Wait()
		small := make(chan error)
		go func() { _, err := b.Acquire(t.Context(), "c", 10); small <- err }()
		synctest.Wait()
		select {
		case <-small:
			t.Fatal("a small one has overtaken a large one")
		default:
		}
		cancel()
		if err := <-large; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if err := <-small; err != nil || b.Used() != 70 {
			t.Fatalf("%v, %d are held", err, b.Used())
		}
		held.Release()
	})
}

func TestSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewByKey("things", 2, 2)
		for range 2 {
			if err := b.Spent("a"); err != nil {
				t.Fatal(err)
			}
			_ = b.Allow("a")
		}
		var e *Error
		if err := b.Spent("a"); !errors.As(err, &e) || e.RetryAfter != 500*time.Millisecond {
			t.Errorf("all is spent: %v", err)
		}
		time.Sleep(time.Second)
		if b.Spent("a") != nil || b.Spent("b") != nil {
			t.Error("there is room again")
		}
	})
}
