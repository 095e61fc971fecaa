package reprise

import (
	"context"
	"math/rand/v2"
	"time"
)

// maxHint bounds how long the client waits because a server asked it to.
const maxHint = 5 * time.Minute

// jitter returns how long to wait before an attempt after n failures: random
// between 0 and least * 2^(n-1), at most most (full jitter).
func jitter(n int, least, most time.Duration) time.Duration {
	bound := min(least, most)
	for i := 1; i < n && bound < most; i++ {
		bound = min(2*bound, most)
	}
	return upTo(bound)
}

// upTo returns a random duration up to d.
func upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d + 1)
}

// round makes a duration fit to be read.
func round(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
