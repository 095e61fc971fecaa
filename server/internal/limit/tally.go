package limit

import "sync"

// Tally counts what is open, in all and by key, and bounds both. Safe for
// concurrent use. Its memory is bounded by its total.
type Tally struct {
	total, per int

	mu   sync.Mutex
	open int
	keys map[string]int
}

// NewTally allows total, and per for each key. Below 0 is no bound.
func NewTally(total, per int) *Tally {
	return &Tally{total: total, per: per, keys: make(map[string]int)}
}

// Take counts one more of key, or reports that a bound is reached.
func (t *Tally) Take(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.total >= 0 && t.open >= t.total || t.per >= 0 && t.keys[key] >= t.per {
		return false
	}
	t.open++
	t.keys[key]++
	return true
}

// Give takes back one Take.
func (t *Tally) Give(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open--
	if t.keys[key]--; t.keys[key] == 0 {
		delete(t.keys, key)
	}
}
