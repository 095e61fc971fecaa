package reprise

import (
	"context"
	"sync"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// maxInboxFrames bounds what waits for the handler by number, for frames that
// have hardly any size.
const maxInboxFrames = 1024

// item is a frame that waits for the handler, and the stream it came on.
type item struct {
	from  *attachment
	frame *reprisev1.ServerFrame
	size  int
}

// inbox is the bounded hand-over between the goroutine that reads and the one
// that runs the handler. One pushes at a time, one pops.
type inbox struct {
	limit int // bytes

	mu      sync.Mutex
	items   []item
	bytes   int
	discard bool

	filled chan struct{} // capacity 1: something was pushed
	freed  chan struct{} // capacity 1: something was popped, or discard was set
}

func newInbox(limit int) *inbox {
	return &inbox{limit: limit, filled: make(chan struct{}, 1), freed: make(chan struct{}, 1)}
}

// tryPush adds it if there is room; an empty inbox takes any frame.
func (b *inbox) tryPush(it item) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.discard {
		return true
	}
	if len(b.items) > 0 && (b.bytes+it.size > b.limit || len(b.items) >= maxInboxFrames) {
		return false
	}
	b.items = append(b.items, it)
	b.bytes += it.size
	signal(b.filled)
	return true
}

// pop waits for the next item.
func (b *inbox) pop(ctx context.Context) (item, error) {
	for {
		if it, ok := b.tryPop(); ok {
			return it, nil
		}
		select {
		case <-b.filled:
		case <-ctx.Done():
			return item{}, ctx.Err()
		}
	}
}

func (b *inbox) tryPop() (item, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.items) == 0 {
		return item{}, false
	}
	it := b.items[0]
	b.items[0] = item{}
	b.items = b.items[1:]
	b.bytes -= it.size
	signal(b.freed)
	return it, true
}

// drop empties the inbox and discards what is pushed from now on: nobody pops
// any more, and the reader has to go on for receipts.
func (b *inbox) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.items, b.bytes, b.discard = nil, 0, true
	signal(b.freed)
}

// signal wakes the one that waits on a channel of capacity 1.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
