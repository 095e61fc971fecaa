package bare

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// stuckAfter is how long one reader may hold up a worker before the work goes
// to another one.
const stuckAfter = 5 * time.Millisecond

// reader is a stream's place in one room. It belongs to whoever swaps busy.
type reader struct {
	out  *out
	room *room
	busy atomic.Bool
	pos  atomic.Uint64
	dead atomic.Bool
}

// drain sends what the reader lacks.
func (r *reader) drain() {
	for !r.dead.Load() && r.pos.Load() < r.room.head() && r.busy.CompareAndSwap(false, true) {
		for {
			elements, last := r.room.read(r.pos.Load())
			if elements == nil {
				break
			}
			if r.out.send(&frame{r.room.header(len(elements)), elements}) != nil {
				r.dead.Store(true)
				break
			}
			r.pos.Store(last)
		}
		r.busy.Store(false) // what came meanwhile is looked for again
	}
}

// pool sends for all readers: a worker for each processor.
type pool struct {
	start time.Time

	mu     sync.Mutex
	ready  *sync.Cond
	queue  []*shard // each at most once
	active map[*worker]*shard
}

// worker is one goroutine's record.
type worker struct {
	since    atomic.Int64 // when the current reader had its turn; 0: none has
	replaced atomic.Bool
}

// newPool starts a pool that lives as long as the process.
func newPool() *pool {
	p := &pool{start: time.Now(), active: make(map[*worker]*shard)}
	p.ready = sync.NewCond(&p.mu)
	for range runtime.GOMAXPROCS(0) {
		go p.work()
	}
	go p.replaceStuck()
	return p
}

func (p *pool) push(s *shard) {
	p.mu.Lock()
	p.queue = append(p.queue, s)
	p.mu.Unlock()
	p.ready.Signal()
}

func (p *pool) work() {
	w := new(worker)
	for {
		s := p.next(w)
		s.queued.Store(false) // before the look at the room
		for _, r := range s.all() {
			w.since.Store(int64(time.Since(p.start)) | 1)
			r.drain()
			w.since.Store(0)
			if w.replaced.Load() {
				return
			}
		}
	}
}

func (p *pool) next(w *worker) *shard {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.active, w)
	for len(p.queue) == 0 {
		p.ready.Wait()
	}
	s := p.queue[0]
	p.queue = p.queue[1:]
	p.active[w] = s
	return s
}

// replaceStuck gives the shard of a worker that a reader holds up to another
// one. The stuck worker finishes that reader, perhaps never, and exits.
func (p *pool) replaceStuck() {
	for range time.Tick(stuckAfter) {
		now := int64(time.Since(p.start))
		p.mu.Lock()
		for w, s := range p.active {
			if since := w.since.Load(); since == 0 || now-since <= int64(stuckAfter) {
				continue
			}
			w.replaced.Store(true)
			delete(p.active, w)
			if s.queued.CompareAndSwap(false, true) {
				p.queue = append(p.queue, s)
			}
			go p.work()
		}
		p.mu.Unlock()
	}
}
