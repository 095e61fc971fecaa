// Package limit holds the rates at which one user, one room or the whole node
// may do things.
package limit

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Error says that a rate is exceeded and when to try again.
type Error struct {
	// What is limited, as a person reads it.
	What string
	// RetryAfter is when there will be room again.
	RetryAfter time.Duration
}

func (e *Error) Error() string {
	return fmt.Sprintf("too many %s; try again in %v", e.What, e.RetryAfter.Round(time.Millisecond))
}

// ByKey limits a rate for each key. Safe for concurrent use.
type ByKey struct {
	what  string
	rate  rate.Limit
	burst int

	mu      sync.Mutex
	buckets map[string]*rate.Limiter
	sweepAt int // number of buckets at which full ones are dropped
}

const firstSweep = 1024

// NewByKey allows perSecond, and bursts of burst, of what for each key.
// perSecond 0 means no limit.
func NewByKey(what string, perSecond float64, burst int) *ByKey {
	return &ByKey{
		what: what, rate: rate.Limit(perSecond), burst: burst,
		buckets: make(map[string]*rate.Limiter), sweepAt: firstSweep,
	}
}

// Allow takes one of key's, or returns an *Error.
func (b *ByKey) Allow(key string) error { return b.AllowN(key, 1) }

// AllowN takes n of key's at once, or none and returns an *Error. More than a
// burst counts as one burst: it could never be taken otherwise.
func (b *ByKey) AllowN(key string, n int) error {
	if b.rate == 0 {
		return nil
	}
	now := time.Now()
	b.mu.Lock()
	l := b.buckets[key]
	if l == nil {
		b.sweepLocked(now)
		l = rate.NewLimiter(b.rate, b.burst)
		b.buckets[key] = l
	}
	b.mu.Unlock()
	r := l.ReserveN(now, min(n, b.burst))
	if d := r.DelayFrom(now); d > 0 {
		r.CancelAt(now)
		return &Error{b.what, d}
	}
	return nil
}

// Spent returns the *Error that Allow would, and takes nothing.
func (b *ByKey) Spent(key string) error {
	now := time.Now()
	b.mu.Lock()
	l := b.buckets[key]
	b.mu.Unlock()
	if b.rate == 0 || l == nil {
		return nil
	}
	if left := l.TokensAt(now); left < 1 {
		return &Error{b.what, time.Duration((1 - left) / float64(b.rate) * float64(time.Second))}
	}
	return nil
}

// sweepLocked drops buckets that are full again: they are as good as new ones.
// So their number is bounded by the keys active within burst/rate seconds.
func (b *ByKey) sweepLocked(now time.Time) {
	if len(b.buckets) < b.sweepAt {
		return
	}
	for k, l := range b.buckets {
		if l.TokensAt(now) >= float64(b.burst) {
			delete(b.buckets, k)
		}
	}
	b.sweepAt = max(firstSweep, 2*len(b.buckets))
}
