package gateway

import (
	"context"
	"net/netip"
	"sync"
)

// tally counts what is open, in all and by address, and bounds both. Safe for
// concurrent use. Its memory is bounded by max.
type tally struct {
	max, maxPer int

	mu    sync.Mutex
	total int
	per   map[string]int
	idle  chan struct{} // closed at total 0; nil if nobody waits
}

func newTally(max, maxPer int) *tally {
	return &tally{max: max, maxPer: maxPer, per: make(map[string]int)}
}

// everybody is the address of connections that many clients share; the bound
// by address does not apply to it.
const everybody = ""

// take counts one more of addr, or reports that a bound is reached.
func (t *tally) take(addr string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.total >= t.max || addr != everybody && t.per[addr] >= t.maxPer {
		return false
	}
	t.total++
	t.per[addr]++
	return true
}

// give takes back one take.
func (t *tally) give(addr string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total--
	if t.per[addr]--; t.per[addr] == 0 {
		delete(t.per, addr)
	}
	if t.total == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

// wait returns when nothing is open, or with the context's error.
func (t *tally) wait(ctx context.Context) error {
	t.mu.Lock()
	if t.total == 0 {
		t.mu.Unlock()
		return nil
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	idle := t.idle
	t.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ipOf is the address in "ip:port".
func ipOf(hostport string) (netip.Addr, bool) {
	ap, err := netip.ParseAddrPort(hostport)
	return ap.Addr().Unmap().WithZone(""), err == nil
}

// count is how many are open.
func (t *tally) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.total
}
