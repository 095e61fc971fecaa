package storetest

import (
	"testing"
	"time"
)

// testClock notes the time, and finds it again after a restart.
func testClock(t *testing.T, h Harness) {
	ctx := t.Context()
	if seen, err := h.Store.Clock(ctx); err != nil || !seen.IsZero() {
		t.Fatalf("before anything was noted: %v, %v", seen, err)
	}
	s := h.Store
	for _, now := range []time.Time{time.Unix(1_700_000_000, 123), time.Unix(1_600_000_000, 0)} { // back too
		if err := s.NoteClock(ctx, now); err != nil {
			t.Fatal(err)
		}
		s = h.Reopen()
		if seen, err := s.Clock(ctx); err != nil || !seen.Equal(now) {
			t.Fatalf("noted %v, found %v, %v", now, seen, err)
		}
	}
}
