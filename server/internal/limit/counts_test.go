package limit

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestCounts: what is stored and what is under way stay within the bound
// together, however long each change takes, and nothing is kept afterwards.
func TestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewCounts(5)
		var mu sync.Mutex
		stored, refused := 2, 0
		read := func(context.Context) (int, error) {
			mu.Lock()
			n := stored
			mu.Unlock()
			time.Sleep(time.Second)
			return n, nil
		}
		for i := range 20 {
			go func() {
				c, err := s.Open(t.Context(), "a", read)
				if err != nil {
					t.Error(err)
					return
				}
				settle, ok := c.Take()
				c.Close() // the outcome comes later
				mu.Lock()
				defer mu.Unlock()
				if !ok {
					refused++
					return
				}
				go func() {
					time.Sleep(time.Duration(i) * time.Second)
					mu.Lock()
					stored++
					mu.Unlock()
					settle(nil)
				}()
			}()
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if stored != 5 || refused != 17 || len(s.keys) != 0 {
			t.Errorf("%d are stored, %d were refused, %d keys are kept", stored, refused, len(s.keys))
		}
	})
}

// TestCountsChange: what did not come to be and what was dropped make place.
func TestCountsChange(t *testing.T) {
	s := NewCounts(1)
	c, err := s.Open(t.Context(), "a", func(context.Context) (int, error) { return 0, nil })
	if err != nil {
		t.Fatal(err)
	}
	take := func(want bool) func(error) {
		t.Helper()
		settle, ok := c.Take()
		if ok != want {
			t.Fatalf("taken: %t, of %d", ok, c.N())
		}
		return settle
	}
	first := take(true)
	take(false)
	first(context.Canceled)
	take(true)(nil)
	c.Drop()(context.Canceled)
	take(false)
	drop := c.Drop()
	take(false)
	drop(nil)
	take(true)(nil)
	c.Close()
	if len(s.keys) != 0 {
		t.Errorf("%d keys are kept", len(s.keys))
	}
	var none *Count
	if settle, ok := none.Take(); !ok {
		t.Error("no count has a bound")
	} else {
		settle(nil)
	}
}

// TestCountsRead: a reading that fails, or that a caller does not wait for, is
// nobody else's.
func TestCountsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewCounts(1)
		failed := errors.New("failed")
		go func() {
			_, err := s.Open(t.Context(), "a", func(context.Context) (int, error) { time.Sleep(time.Minute); return 0, failed })
			if !errors.Is(err, failed) {
				t.Error(err)
			}
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Open(ctx, "a", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		c, err := s.Open(t.Context(), "a", func(context.Context) (int, error) { return 1, nil })
		if err != nil || c.N() != 1 {
			t.Fatal(c, err)
		}
		c.Close()
		if len(s.keys) != 0 {
			t.Errorf("%d keys are kept", len(s.keys))
		}
	})
}
