package attach

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// stuckAfter is how long one turn of a worker may take before another worker
// takes its place. A turn takes long only when a client does not read.
const stuckAfter = 5 * time.Millisecond

// Pool sends for all attachments. It has as many workers as there are
// processors, so a stream needs no sending goroutine of its own. A worker that
// is held up by a client that does not read is replaced; it finishes that one
// turn when the client reads again or is gone, and exits. So non-readers cost
// a goroutine each and hold up nobody.
type Pool struct {
	start   time.Time
	workers sync.WaitGroup
	watcher sync.WaitGroup

	mu     sync.Mutex
	ready  *sync.Cond
	queues [2]queue // by lane; an attachment is in each at most once
	ahead  int      // urgent turns since the last patient one
	idle   int      // workers that wait
	active map[*worker]struct{}
	watch  *sync.Cond // the watcher waits here while active is empty
	closed bool
}

// lane is one of the pool's queues.
type lane int

const (
	// patient is for events: the readers of a crowded room fill it.
	patient lane = iota
	// urgent is for answers and control frames, which nobody should await
	// behind a thousand others.
	urgent
)

// maxAhead is how many urgent turns may come before a patient one.
const maxAhead = 4

// queue is first in, first out.
type queue struct {
	items []*Attachment
	first int // index of the oldest
}

func (q *queue) len() int { return len(q.items) - q.first }

func (q *queue) push(a *Attachment) {
	if q.first > len(q.items)/2 { // amortised: at most one move an element
		n := copy(q.items, q.items[q.first:])
		clear(q.items[n:])
		q.items, q.first = q.items[:n], 0
	}
	q.items = append(q.items, a)
}

func (q *queue) pop() *Attachment {
	a := q.items[q.first]
	q.items[q.first] = nil
	q.first++
	return a
}

// worker is one goroutine's record.
type worker struct {
	// since is when the current turn began, in nanoseconds since Pool.start; 0
	// between turns.
	since atomic.Int64
	// replaced is guarded by Pool.mu.
	replaced bool
}

// NewPool starts a pool. Close it.
func NewPool() *Pool {
	p := &Pool{start: time.Now(), active: make(map[*worker]struct{})}
	p.ready, p.watch = sync.NewCond(&p.mu), sync.NewCond(&p.mu)
	for range runtime.GOMAXPROCS(0) {
		p.workers.Go(p.work)
	}
	p.watcher.Go(p.replaceStuck)
	return p
}

// Close waits for the workers. All streams have ended.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.ready.Broadcast()
	p.watch.Broadcast()
	p.mu.Unlock()
	p.workers.Wait()
	p.watcher.Wait()
}

// push puts a into a lane. The caller has made sure that it is not there.
func (p *Pool) push(a *Attachment, l lane) {
	p.mu.Lock()
	p.queues[l].push(a)
	wake := p.idle > 0
	p.mu.Unlock()
	if wake {
		p.ready.Signal()
	}
}

// Busy reports whether attachments wait to send events.
func (p *Pool) Busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queues[patient].len() > 0
}

func (p *Pool) work() {
	w := new(worker)
	for {
		a, l := p.next(w)
		if a == nil {
			return
		}
		again := a.turn(l)
		w.since.Store(0)
		if again {
			p.push(a, patient)
		}
	}
}

// next waits for an attachment that wants a turn; nil means that the worker is
// no longer needed.
func (p *Pool) next(w *worker) (*Attachment, lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.active, w)
	for {
		// A closed pool still gives the turns that were asked for.
		if p.waitingLocked() && !w.replaced {
			break
		}
		if p.closed || w.replaced {
			return nil, 0
		}
		p.idle++
		p.ready.Wait()
		p.idle--
	}
	l := p.laneLocked()
	a := p.queues[l].pop()
	w.since.Store(int64(time.Since(p.start)) | 1)
	if len(p.active) == 0 {
		p.watch.Signal()
	}
	p.active[w] = struct{}{}
	return a, l
}

func (p *Pool) waitingLocked() bool { return p.queues[patient].len()+p.queues[urgent].len() > 0 }

// laneLocked chooses whose turn it is, of those that wait.
func (p *Pool) laneLocked() lane {
	if p.queues[urgent].len() > 0 && (p.ahead < maxAhead || p.queues[patient].len() == 0) {
		p.ahead++
		return urgent
	}
	p.ahead = 0
	return patient
}

// replaceStuck starts a new worker for each one whose turn takes too long. It
// sleeps while nobody has a turn.
func (p *Pool) replaceStuck() {
	tick := time.NewTicker(stuckAfter)
	defer tick.Stop()
	for p.waitActive() {
		<-tick.C
		now := int64(time.Since(p.start))
		p.mu.Lock()
		for w := range p.active {
			if s := w.since.Load(); s != 0 && now-s > int64(stuckAfter) && !p.closed {
				w.replaced = true
				delete(p.active, w)
				p.workers.Go(p.work)
			}
		}
		p.mu.Unlock()
	}
}

// waitActive waits until a worker has a turn; false means that the pool is
// closed.
func (p *Pool) waitActive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.active) == 0 && !p.closed {
		p.watch.Wait()
	}
	return !p.closed
}
