package limit

import (
	"container/list"
	"context"
	"net/netip"
	"sync"
	"time"
)

// Budget is an amount of memory that callers share, fairly by key: no key has
// more than its part of it, and one that waits for its own part holds up
// nobody else. Safe for concurrent use. Its memory is bounded by the number of
// callers that hold or wait.
type Budget struct {
	what       string
	total, per int
	wait       time.Duration

	mu      sync.Mutex
	used    int
	keys    map[string]int // what each key holds; none at 0
	waiting list.List      // of *waiter, in order
}

type waiter struct {
	key   string
	n     int
	ready chan struct{}
}

// NewBudget returns a budget of total, at most per of it for one key. A caller
// waits for at most wait. what is what there is too much of, for people.
func NewBudget(what string, total, per int, wait time.Duration) *Budget {
	return &Budget{what: what, total: total, per: min(per, total), wait: wait, keys: make(map[string]int)}
}

// Lease is a part of a Budget. The zero Lease is of nothing.
type Lease struct {
	b   *Budget
	key string
	n   int
}

// Release gives the part back. Later calls do nothing.
func (l *Lease) Release() {
	if l.b != nil {
		l.b.release(l.key, l.n)
		*l = Lease{}
	}
}

// Acquire waits until key may have n more. Who wants more than a key's whole
// part waits until it has nothing else. The error is an *Error, or the
// context's.
func (b *Budget) Acquire(ctx context.Context, key string, n int) (Lease, error) {
	n = min(n, b.per)
	b.mu.Lock()
	if b.waiting.Len() == 0 && b.takeLocked(key, n) {
		b.mu.Unlock()
		return Lease{b, key, n}, nil
	}
	w := &waiter{key, n, make(chan struct{})}
	e := b.waiting.PushBack(w)
	b.serveLocked() // others may wait for their own parts only
	b.mu.Unlock()

	timeout := time.NewTimer(b.wait)
	defer timeout.Stop()
	select {
	case <-w.ready:
		return Lease{b, key, n}, nil
	case <-timeout.C:
		return b.giveUp(w, e, &Error{b.what, b.wait})
	case <-ctx.Done():
		return b.giveUp(w, e, ctx.Err())
	}
}

// giveUp ends a wait, unless its turn came at that moment.
func (b *Budget) giveUp(w *waiter, e *list.Element, err error) (Lease, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.ready:
		return Lease{b, w.key, w.n}, nil
	default:
	}
	b.waiting.Remove(e)
	b.serveLocked() // it may have held up those behind it
	return Lease{}, err
}

func (b *Budget) takeLocked(key string, n int) bool {
	if b.used+n > b.total || b.keys[key]+n > b.per {
		return false
	}
	b.used += n
	b.keys[key] += n
	return true
}

// serveLocked gives those that wait what there is, in order. One that waits for
// its own key's part is passed over; one that waits for the total is not, so
// that small ones do not starve a large one.
func (b *Budget) serveLocked() {
	var next *list.Element
	for e := b.waiting.Front(); e != nil; e = next {
		next = e.Next()
		w := e.Value.(*waiter)
		switch {
		case b.takeLocked(w.key, w.n):
			b.waiting.Remove(e)
			close(w.ready)
		case b.keys[w.key]+w.n <= b.per:
			return
		}
	}
}

func (b *Budget) release(key string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.keys[key] -= n; b.keys[key] == 0 {
		delete(b.keys, key)
	}
	b.serveLocked()
}

// Used returns how much is held.
func (b *Budget) Used() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Address names who is behind "ip:port" for bounds by address: for IPv6 the
// /64, which is what one customer is given.
func Address(hostport string) string {
	ap, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return hostport
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip, 64).Masked().String()
}
