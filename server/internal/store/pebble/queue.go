package pebble

import (
	"sync"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// Bounds of one batch. More per sync gains nothing and makes everyone wait.
const (
	maxBatchEvents = 4096
	maxBatchBytes  = 1 << 20
)

// op is a write that waits for its turn.
type op interface {
	// cost is what the write adds to a batch.
	cost() (events, bytes int)
	// apply adds the write to the batch, or returns why it is refused and
	// has added nothing.
	apply(b *batch) error
	// done tells the writer the outcome. Called once.
	done(err error)
}

// queue is what waits for the committer, in order. It takes no more appends
// once it holds maxBytes; all other writers wait for their write, so their
// number bounds them.
type queue struct {
	maxBytes int
	wake     chan struct{} // capacity 1: something was put, or closed was set

	mu     sync.Mutex
	ops    []op // guarded by mu
	bytes  int  // of ops; guarded by mu
	closed bool // guarded by mu
}

func newQueue(maxBytes int) *queue {
	return &queue{maxBytes: maxBytes, wake: make(chan struct{}, 1)}
}

// put appends o, or refuses it: store.ErrClosed, store.ErrQueueFull.
func (q *queue) put(o op) error {
	_, bytes := o.cost()
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return store.ErrClosed
	}
	if _, isAppend := o.(*appendOp); isAppend && q.bytes+bytes > q.maxBytes {
		q.mu.Unlock()
		return store.ErrQueueFull
	}
	q.ops = append(q.ops, o)
	q.bytes += bytes
	q.mu.Unlock()
	q.signal()
	return nil
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take waits for writes and returns as many as make one batch. It returns
// none when the queue is closed and empty.
func (q *queue) take() []op {
	for {
		if ops, closed := q.next(); len(ops) > 0 || closed {
			return ops
		}
		<-q.wake
	}
}

func (q *queue) next() (ops []op, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, events, bytes := 0, 0, 0
	for n < len(q.ops) {
		e, b := q.ops[n].cost()
		if n > 0 && (events+e > maxBatchEvents || bytes+b > maxBatchBytes) {
			break
		}
		n, events, bytes = n+1, events+e, bytes+b
	}
	ops = q.ops[:n:n]
	q.bytes -= bytes
	if q.ops = q.ops[n:]; len(q.ops) == 0 {
		// ops is the notifier's now. The next batch is likely to be as large.
		q.ops = make([]op, 0, n)
	}
	return ops, q.closed
}

func (q *queue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

// close lets take return what is left and then nothing.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}
