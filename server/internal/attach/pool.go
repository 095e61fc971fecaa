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
	size    int // workers that are not stuck
	workers sync.WaitGroup
	watcher sync.WaitGroup

	mu     sync.Mutex
	ready  *sync.Cond
	lanes  lanes
	rest   *time.Timer // ends a rest of the patient lane
	idle   int         // workers that wait
	active map[*worker]struct{}
	watch  *sync.Cond // the watcher waits here while active is empty
	closed bool
}

// worker is one goroutine's record.
type worker struct {
	// since is when the current turn began, in nanoseconds since Pool.start; 0
	// between turns.
	since atomic.Int64
	// replaced is guarded by Pool.mu.
	replaced bool
	// little: its last turn was a patient one, and sent little. Its own.
	little bool
}

// NewPool starts a pool. Close it.
func NewPool() *Pool {
	p := &Pool{start: time.Now(), size: runtime.GOMAXPROCS(0), active: make(map[*worker]struct{})}
	p.ready, p.watch = sync.NewCond(&p.mu), sync.NewCond(&p.mu)
	p.rest = time.AfterFunc(restFor, p.endRest)
	for range p.size {
		p.workers.Go(p.work)
	}
	p.watcher.Go(p.replaceStuck)
	return p
}

// Close waits for the workers. All streams have ended.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.rest.Stop()
	p.lanes.resting = false
	p.ready.Broadcast()
	p.watch.Broadcast()
	p.mu.Unlock()
	p.workers.Wait()
	p.watcher.Wait()
}

// push puts a into a lane. The caller has made sure that it is not there.
func (p *Pool) push(a *Attachment, l lane) {
	p.mu.Lock()
	p.lanes.push(a, l)
	wake := p.idle > 0
	p.mu.Unlock()
	if wake {
		p.ready.Signal()
	}
}

// Busy reports whether attachments wait to send events, which those of a room
// with so many readers would have to wait for.
func (p *Pool) Busy(readers int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lanes.behind(laneOf(readers)) > 0
}

func (p *Pool) work() {
	w := new(worker)
	for {
		a, l := p.next(w)
		if a == nil {
			return
		}
		sent, again := a.turn(l)
		w.since.Store(0)
		if again {
			p.push(a, l.again())
		}
		if w.little = l == patient && sent < littleBytes; w.little {
			// The transport writes first: five thousand streams with something to
			// write are a queue in front of everybody, and hold 32 KiB each.
			runtime.Gosched()
		}
	}
}

// next waits for an attachment that wants a turn; nil means that the worker is
// no longer needed.
func (p *Pool) next(w *worker) (*Attachment, lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.active, w)
	if w.little && !p.closed && p.lanes.sentLittle(p.size) {
		p.rest.Reset(restFor)
	}
	for {
		// A closed pool still gives the turns that were asked for.
		if p.lanes.ready() && !w.replaced {
			break
		}
		if p.closed || w.replaced {
			return nil, 0
		}
		p.idle++
		p.ready.Wait()
		p.idle--
	}
	a, l := p.lanes.pop()
	w.since.Store(int64(time.Since(p.start)) | 1)
	if len(p.active) == 0 {
		p.watch.Signal()
	}
	p.active[w] = struct{}{}
	return a, l
}

// endRest has the patient lane go on.
func (p *Pool) endRest() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lanes.resting = false
	p.ready.Broadcast()
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
