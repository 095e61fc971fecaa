package limit

import (
	"context"
	"sync"
)

// Counts bounds how many of something each key has, where what it has is
// stored elsewhere and changes take a while. A count is read when nothing of
// its key is under way, and from then on kept here until nothing is: so what is
// stored and what is under way are known together, and changes at once do not
// get past the bound. Safe for concurrent use. Its memory is bounded by the
// calls and changes under way.
type Counts struct {
	most int

	mu   sync.Mutex
	keys map[string]*Count
}

// NewCounts returns counts of at most so many for each key.
func NewCounts(most int) *Counts { return &Counts{most: most, keys: make(map[string]*Count)} }

// Count is what one key has. All methods but Open's wait for a first reading
// return at once. A nil Count has no bound.
type Count struct {
	of  *Counts
	key string

	reading chan struct{} // capacity 1: holds an element while read is called
	known   bool          // n was read; guarded by reading

	uses int // calls and changes that refer to it; guarded by of.mu
	n    int // what there is, and what is about to be; guarded by of.mu
}

// Open returns the count of key, which read reads if it is not known. Close it
// when the call is over.
func (s *Counts) Open(ctx context.Context, key string, read func(context.Context) (int, error)) (*Count, error) {
	c := s.use(key)
	select {
	case c.reading <- struct{}{}:
	case <-ctx.Done():
		c.Close()
		return nil, ctx.Err()
	}
	defer func() { <-c.reading }()
	if c.known {
		return c, nil
	}
	n, err := read(ctx)
	if err != nil {
		c.Close()
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.n, c.known = n, true
	return c, nil
}

func (s *Counts) use(key string) *Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.keys[key]
	if c == nil {
		c = &Count{of: s, key: key, reading: make(chan struct{}, 1)}
		s.keys[key] = c
	}
	c.uses++
	return c
}

// Close ends the use of a call.
func (c *Count) Close() { c.change(-1, 0) }

func (c *Count) change(uses, n int) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.n += n
	if c.uses += uses; c.uses == 0 {
		delete(c.of.keys, c.key)
	}
}

// Take counts one more, or reports that the bound is reached. settle must be
// called once, when the outcome is known and, if it is a success, stored: with
// an error the one is not counted any more. That may be after Close.
func (c *Count) Take() (settle func(error), ok bool) {
	if c == nil {
		return func(error) {}, true
	}
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.n >= c.of.most {
		return nil, false
	}
	c.n++
	c.uses++
	return func(err error) {
		if err != nil {
			c.change(-1, -1)
			return
		}
		c.change(-1, 0)
	}, true
}

// Drop is about one less, which is counted once settle is called with nil.
func (c *Count) Drop() (settle func(error)) {
	c.change(1, 0)
	return func(err error) {
		if err != nil {
			c.change(-1, 0)
			return
		}
		c.change(-1, -1)
	}
}

// N returns what is counted.
func (c *Count) N() int {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	return c.n
}
