package room

import (
	"context"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// Subscriber is told when a room it has a cursor in has news.
type Subscriber interface {
	// Wake says that the room may have moved, to this many readers at once. It
	// must not block, may come more often than needed, and once more after Close.
	Wake(readers int)
}

// Cursor is a reader's place in a room. Init it, then call Next from one
// goroutine at a time.
type Cursor struct {
	room *Room
	sub  Subscriber
	// index in room.cursors, guarded by room.mu.
	index int
	// pos is the newest offset handed out; owned by the caller of Next.
	pos uint64
}

// Batch is what comes next in a room: either events or a range that is gone.
type Batch struct {
	// Data holds encoded events of one incarnation, one after another. Shared:
	// never change it.
	Data []byte
	// Incarnation of the events, or of the end of the trimmed range.
	Incarnation string
	// First and Last are the offsets covered; Last is 0 if there is nothing.
	First, Last uint64
	// Trimmed: retention has removed First to Last; there is no Data.
	Trimmed bool
}

// Place puts c in r, before the first event, without subscribing.
func (c *Cursor) Place(r *Room) { c.room, c.index = r, -1 }

// Init places c in r at pos and subscribes s to the room's news. It returns
// the head at that moment: every event beyond it will be told by Wake.
func (c *Cursor) Init(r *Room, s Subscriber, pos uint64) (head uint64) {
	c.room, c.sub, c.pos = r, s, pos
	r.used.Store(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	c.index = len(r.cursors)
	r.cursors = append(r.cursors, c)
	return r.durable
}

// Close ends the subscription. Next must not be called afterwards.
func (c *Cursor) Close() {
	r := c.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.index < 0 {
		return
	}
	last := len(r.cursors) - 1
	r.cursors[c.index] = r.cursors[last]
	r.cursors[c.index].index = c.index
	r.cursors[last] = nil
	r.cursors = r.cursors[:last]
	c.index = -1
}

// Room returns the room.
func (c *Cursor) Room() *Room { return c.room }

// Pos returns the newest offset handed out.
func (c *Cursor) Pos() uint64 { return c.pos }

// Skip moves the cursor: what is up to pos will not be handed out.
func (c *Cursor) Skip(pos uint64) { c.pos = pos }

// Behind reports whether Next has something to hand out.
func (c *Cursor) Behind() bool {
	c.room.mu.Lock()
	defer c.room.mu.Unlock()
	return c.pos < c.room.durable
}

// Next hands out what comes after the cursor, up to offset to (0: the head),
// at most maxBytes of it but at least one event, and moves the cursor. It
// reads the store, under ctx, only when the tail no longer reaches back.
func (c *Cursor) Next(ctx context.Context, to uint64, maxBytes int) (Batch, error) {
	b, err := c.room.read(ctx, c.pos, to, maxBytes)
	if err == nil && b.Last > c.pos {
		c.pos = b.Last
	}
	return b, err
}

// read is the one way to read events: live, replay and by range. What the tail
// no longer holds comes from pages that readers share.
func (r *Room) read(ctx context.Context, after, to uint64, maxBytes int) (Batch, error) {
	for {
		r.mu.Lock()
		end := r.durable
		if to != 0 {
			end = min(end, to)
		}
		if after >= end {
			r.mu.Unlock()
			return Batch{}, nil
		}
		if after+1 < r.oldest {
			b := r.trimmedLocked(after)
			r.mu.Unlock()
			return b, nil
		}
		incarnation, stretch := r.stretchLocked(after + 1)
		end = min(end, stretch)
		b := Batch{Incarnation: incarnation, First: after + 1}
		if b.Data, b.Last = r.inMemoryLocked(after, end, maxBytes); b.Last != 0 {
			r.mu.Unlock()
			return b, nil
		}
		if others := r.fetching[after+1]; others != nil {
			r.mu.Unlock()
			select {
			case <-others:
				continue
			case <-ctx.Done():
				return Batch{}, ctx.Err()
			}
		}
		r.fetching[after+1] = make(chan struct{})
		until := r.untilLocked(after + 1)
		r.mu.Unlock()
		c, ok, err := r.fetch(ctx, after+1, until)
		if err != nil {
			return Batch{}, err
		}
		if !ok { // trimmed since we looked
			return r.overtaken(after)
		}
		b.Data, b.Last = c.read(0, int(min(end, c.next()-1)-c.first), maxBytes)
		return b, nil
	}
}

// inMemoryLocked returns events after `after` up to `to` that are in memory, as
// tail.read does.
func (r *Room) inMemoryLocked(after, to uint64, maxBytes int) (data []byte, last uint64) {
	if data, last = r.tail.read(after, to, maxBytes); last != 0 {
		return data, last
	}
	c := r.pageLocked(after + 1)
	if c == nil {
		return nil, 0
	}
	return c.read(int(after+1-c.first), int(min(to, c.next()-1)-c.first), maxBytes)
}

// overtaken answers a read that retention has overtaken between the look at
// the room and the read of the store.
func (r *Room) overtaken(after uint64) (Batch, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.oldest = max(r.oldest, r.log.State().Oldest)
	if after+1 >= r.oldest {
		return Batch{}, r.unavailable(&store.CorruptError{Room: r.name, Offset: after + 1, Detail: "the event is missing"})
	}
	return r.trimmedLocked(after), nil
}

func (r *Room) trimmedLocked(after uint64) Batch {
	last := r.oldest - 1
	return Batch{Incarnation: r.incarnationLocked(last), First: after + 1, Last: last, Trimmed: true}
}

// stretchLocked returns the incarnation of offset and the last offset of its
// stretch.
func (r *Room) stretchLocked(offset uint64) (incarnation string, end uint64) {
	end = r.durable
	for i := len(r.stretches) - 1; i >= 0; i-- {
		if r.stretches[i].First <= offset {
			return r.stretches[i].Incarnation, end
		}
		end = r.stretches[i].First - 1
	}
	return "", end
}

// rangeBytes is how much Range reads at a time.
const rangeBytes = 64 << 10

// Range reads events after `after` and before `before` (0: no bound) for a
// caller without a cursor, in ascending order, as long as yield returns true.
// It yields a Batch with Trimmed set first if the start of the range is gone.
func (r *Room) Range(ctx context.Context, after, before uint64, yield func(Batch) bool) error {
	to := uint64(0)
	if before > 0 {
		if before <= after+1 {
			return nil
		}
		to = before - 1
	}
	for {
		b, err := r.read(ctx, after, to, rangeBytes)
		if err != nil || b.Last == 0 || !yield(b) {
			return err
		}
		after = b.Last
	}
}
