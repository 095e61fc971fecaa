package room

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// pageAge is how long a page stays in memory: clients that come back at once
// share it, and a page is read again cheaply.
const pageAge = 10 * time.Second

// shelf bounds the memory of the pages of all rooms together: of the chunks
// that were read from the store because the tails no longer reach back. The
// oldest go first.
type shelf struct {
	limit int

	mu    sync.Mutex // held for a few instructions, and with no room's mu
	pages []shelved  // in the order they were read
	bytes int
}

type shelved struct {
	room  *Room
	first uint64
	bytes int
	read  time.Time
}

// put notes a page that is in its room already, and drops what is too much.
func (s *shelf) put(p shelved) {
	s.mu.Lock()
	s.pages = append(s.pages, p)
	s.bytes += p.bytes
	over := s.takeLocked(func(shelved) bool { return s.bytes > s.limit })
	s.mu.Unlock()
	drop(over)
}

// expire drops the pages that were read before limit.
func (s *shelf) expire(limit time.Time) {
	s.mu.Lock()
	over := s.takeLocked(func(p shelved) bool { return p.read.Before(limit) })
	s.mu.Unlock()
	drop(over)
}

// takeLocked takes out the oldest pages as long as over says so.
func (s *shelf) takeLocked(over func(shelved) bool) []shelved {
	n := 0
	for n < len(s.pages) && over(s.pages[n]) {
		s.bytes -= s.pages[n].bytes
		n++
	}
	taken := slices.Clone(s.pages[:n])
	clear(s.pages[:n])
	s.pages = s.pages[n:]
	return taken
}

func drop(pages []shelved) {
	for _, p := range pages {
		p.room.dropPage(p.first)
	}
}

// pageLocked returns the page that holds offset, or nil.
func (r *Room) pageLocked(offset uint64) *chunk {
	i, found := slices.BinarySearchFunc(r.pages, offset, byFirst)
	if !found {
		i--
	}
	if i < 0 || offset >= r.pages[i].next() {
		return nil
	}
	return &r.pages[i]
}

func byFirst(c chunk, offset uint64) int { return cmp.Compare(c.first, offset) }

// keepPage puts a page where other readers find it. Pages do not overlap but
// at the end, when two were read at once.
func (r *Room) keepPage(c chunk) {
	r.mu.Lock()
	i, found := slices.BinarySearchFunc(r.pages, c.first, byFirst)
	if !found {
		r.pages = slices.Insert(r.pages, i, c)
	}
	r.mu.Unlock()
	if !found {
		r.hub.shelf.put(shelved{r, c.first, cap(c.buf), time.Now()})
	}
}

func (r *Room) dropPage(first uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i, found := slices.BinarySearchFunc(r.pages, first, byFirst); found {
		r.pages = slices.Delete(r.pages, i, i+1)
	}
}

// untilLocked returns the last offset that neither a page nor the tail holds,
// of those from offset first on.
func (r *Room) untilLocked(first uint64) uint64 {
	to := r.durable
	if len(r.tail.chunks) > 0 {
		if t := r.tail.chunks[0].first; t > first {
			to = min(to, t-1)
		}
	}
	if i, _ := slices.BinarySearchFunc(r.pages, first, byFirst); i < len(r.pages) {
		to = min(to, r.pages[i].first-1)
	}
	return to
}

// fetch reads the events from offset first to at most `to` from the store, as
// many as go into one chunk, for its caller and for everybody who waits for
// them: of the readers that lack the same events, one reads. Nobody else reads
// from first meanwhile, see read. ok is false if retention was faster.
func (r *Room) fetch(ctx context.Context, first, to uint64) (c chunk, ok bool, err error) {
	defer func() {
		r.fetched(first)
		if err = r.unavailable(err); errors.Is(err, ErrUnavailable) {
			r.hub.troubled(r.name, err)
		}
	}()
	page, err := r.engine().Read(ctx, first-1, to, chunkMax, nil)
	if err != nil || page.First != first {
		return chunk{}, false, err
	}
	c = chunk{first: first, buf: page.Data, ends: make([]uint32, 0, page.Last-first+1)}
	for rest := page.Data; len(rest) > 0; {
		if _, rest, err = event.Next(rest); err != nil {
			return chunk{}, false, &store.CorruptError{Room: r.name, Offset: c.next(), Detail: err.Error()}
		}
		c.ends = append(c.ends, uint32(len(page.Data)-len(rest)))
	}
	if c.next() != page.Last+1 {
		return chunk{}, false, &store.CorruptError{Room: r.name, Offset: first,
			Detail: fmt.Sprintf("%d events where %d to %d should be", len(c.ends), first, page.Last)}
	}
	r.keepPage(c)
	return c, true, nil
}

// fetched has those who wait for a fetch look again.
func (r *Room) fetched(first uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.fetching[first])
	delete(r.fetching, first)
}
