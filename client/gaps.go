package reprise

import (
	"cmp"
	"context"
	"iter"
	"slices"
)

// Gaps returns the open recoverable gaps of the session: ranges that were not
// delivered and that [Client.FetchGap] may still get. They are known while
// and after Run runs.
func (c *Client) Gaps() []Gap {
	c.mu.Lock()
	book := c.book
	c.mu.Unlock()
	if book == nil {
		return nil
	}
	return book.openGaps()
}

// FetchGap returns the events of a gap, fetching page after page. What the
// caller has consumed of an open gap is taken off it; when all was consumed
// the gap is closed. It ends after the first error. Events of a gap are not
// part of the exactly-once delivery: a program that is killed in between may
// fetch some again.
func (c *Client) FetchGap(ctx context.Context, g Gap) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for after := g.First - 1; after < g.Last; {
			page, err := c.ListEvents(ctx, g.Room, Range{After: after, Before: g.Last + 1, Limit: 1000})
			if err != nil {
				yield(Event{}, err)
				return
			}
			for _, e := range page.Events {
				if !yield(e, nil) {
					c.consumed(g, after)
					return
				}
				after = e.Offset
			}
			if !page.More || len(page.Events) == 0 {
				after = g.Last // the rest of the range is not there any more
			}
			c.consumed(g, after)
		}
	}
}

// consumed takes what was fetched of a gap, up to an offset, off the open one.
func (c *Client) consumed(g Gap, upTo uint64) {
	c.mu.Lock()
	book := c.book
	c.mu.Unlock()
	if book != nil && upTo >= g.First {
		book.narrowGap(g.Room, g.First, upTo)
	}
}

// openGaps returns the recoverable gaps by room and offset.
func (l *ledger) openGaps() []Gap {
	l.mu.Lock()
	defer l.mu.Unlock()
	var gaps []Gap
	for _, e := range l.rooms {
		gaps = append(gaps, e.gaps...)
	}
	slices.SortFunc(gaps, func(a, b Gap) int {
		if a.Room != b.Room {
			return cmp.Compare(a.Room, b.Room)
		}
		return cmp.Compare(a.First, b.First)
	})
	return gaps
}

// narrowGap takes everything up to an offset off an open gap.
func (l *ledger) narrowGap(room string, first, upTo uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.rooms[room]
	if !ok {
		return
	}
	narrow := func(open []Gap) (rest []Gap) {
		for _, g := range open {
			if g.First >= first && g.First <= upTo {
				e.dirty = true
				g.First = upTo + 1
			}
			if g.First <= g.Last {
				rest = append(rest, g)
			}
		}
		return rest
	}
	e.gaps, e.pending = narrow(e.gaps), narrow(e.pending)
}
