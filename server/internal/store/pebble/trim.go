package pebble

import (
	"context"
	"sort"
	"time"

	db "github.com/cockroachdb/pebble/v2"

	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/fault"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// Trim implements [store.Log].
func (l *Log) Trim(ctx context.Context, r store.Bounds) (store.State, error) {
	keep, err := l.firstWithin(ctx, r)
	for err == nil {
		var more bool
		if more, err = l.trimStep(ctx, keep, r.Since); !more {
			break
		}
	}
	return l.State(), err
}

// firstWithin returns the oldest offset that is within the bounds of number
// and of bytes; head + 1 if none is.
func (l *Log) firstWithin(ctx context.Context, r store.Bounds) (uint64, error) {
	v, d, err := l.acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer l.s.release(v)
	if d.number == 0 {
		return 0, nil
	}
	head, keep := d.state.Head, d.state.Oldest
	if r.MaxEvents > 0 && head-keep+1 > r.MaxEvents {
		keep = head - r.MaxEvents + 1
	}
	if r.MaxBytes == 0 || keep > head {
		return keep, nil
	}
	return l.firstWithinBytes(ctx, v.snap, d.number, keep, head, r.MaxBytes)
}

// firstWithinBytes searches [from, head] for the oldest offset from which on
// the events take at most maxBytes. The running totals make it a binary search.
func (l *Log) firstWithinBytes(ctx context.Context, r db.Reader, number, from, head, maxBytes uint64) (uint64, error) {
	total, _, err := l.totals(r, number, head)
	if err != nil || total <= maxBytes {
		return from, err
	}
	n := sort.Search(int(head-from+1), func(i int) bool {
		if err != nil {
			return true
		}
		if err = ctx.Err(); err != nil {
			return true
		}
		var before uint64
		_, before, err = l.totals(r, number, from+uint64(i))
		return before >= total-maxBytes
	})
	return from + uint64(n), err
}

// totals returns the running totals of bytes at an offset and before it.
func (l *Log) totals(r db.Reader, number, offset uint64) (total, before uint64, err error) {
	value, ok, err := get(r, eventKey(number, offset))
	if err != nil {
		return 0, 0, err
	}
	if !ok {
		return 0, 0, l.corrupt(offset, "the event is missing")
	}
	total, element, err := splitEvent(value)
	if err != nil || total < uint64(len(element)) {
		return 0, 0, l.corrupt(offset, "the running total is malformed")
	}
	return total, total - uint64(len(element)), nil
}

// trimStep removes up to SweepBatch events that are before keep or older than
// since. It reports whether there may be more.
func (l *Log) trimStep(ctx context.Context, keep uint64, since time.Time) (more bool, err error) {
	o, err := l.planTrim(ctx, keep, since)
	if err != nil || o == nil {
		return false, err
	}
	fault.Point(fault.Trimming)
	return true, l.s.do(ctx, o, o.awaited)
}

// planTrim collects a step; nil if there is nothing to remove.
func (l *Log) planTrim(ctx context.Context, keep uint64, since time.Time) (*trimOp, error) {
	v, d, err := l.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer l.s.release(v)
	oldest := d.state.Oldest
	if d.number == 0 || oldest > d.state.Head {
		return nil, nil
	}
	o := &trimOp{awaited: newAwaited(), room: l.room, number: d.number, oldest: oldest}
	end := min(d.state.Head, oldest+uint64(l.s.opts.SweepBatch)-1)
	lower, upper := eventKey(d.number, oldest), eventKey(d.number, end+1)
	err = scan(v.snap, lower, upper, func(key, value []byte) (bool, error) {
		element, err := l.element(key, value, o.oldest)
		if err != nil {
			return false, err
		}
		e, err := event.Decode(element)
		if err != nil {
			return false, l.corrupt(o.oldest, err.Error())
		}
		if o.oldest >= keep && !e.GetTime().AsTime().Before(since) {
			return false, nil
		}
		if e.GetClientId() != "" {
			o.clientIDs = append(o.clientIDs, appendClientIDKey(nil, d.number, e.GetSender(), e.GetClientId()))
		}
		o.oldest++
		return true, nil
	})
	if err != nil || o.oldest == oldest {
		return nil, err
	}
	return o, nil
}

// trimOp raises the oldest retained offset of a room.
type trimOp struct {
	awaited
	room      *room
	number    uint64 // of the room that was looked at
	oldest    uint64
	clientIDs [][]byte // keys of the removed events' client ids
}

func (o *trimOp) cost() (events, bytes int) { return 1 + len(o.clientIDs), 64 * len(o.clientIDs) }

func (o *trimOp) apply(b *batch) error {
	t := &o.room.truth
	if o.number != t.number || o.oldest <= t.oldest {
		return nil
	}
	b.deleteRange(eventKey(t.number, t.oldest), eventKey(t.number, o.oldest))
	for _, key := range o.clientIDs {
		b.delete(key)
	}
	t.oldest = o.oldest
	b.change(o.room)
	// The floor and the last offset, so that readers never walk over what was
	// removed and offsets never restart.
	b.putTail(t)
	return nil
}
