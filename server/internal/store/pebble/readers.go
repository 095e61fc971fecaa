package pebble

import (
	"context"
	"sync"
)

// readerCount is how many records are looked up at once. It bounds the threads
// that wait for the disk when a thousand clients come back to a cold store.
const readerCount = 16

// readers are goroutines that look up records for others. A look-up takes a
// deep stack: a caller of its own, one of a thousand streams that have just
// begun, would have to grow and copy its stack for it and keep the pages; that
// was a quarter of the cost of an attach. These have grown theirs.
type readers struct {
	jobs chan *job
	idle sync.Pool // of *job
	wg   sync.WaitGroup
}

// job is a look-up and where its caller waits for it.
type job struct {
	look func() error
	err  chan error // capacity 1
}

func newReaders() *readers {
	r := &readers{jobs: make(chan *job)}
	r.idle.New = func() any { return &job{err: make(chan error, 1)} }
	for range readerCount {
		r.wg.Go(func() {
			for j := range r.jobs {
				j.err <- j.look()
			}
		})
	}
	return r
}

// run returns what look returns, or ctx's error if ctx ends while all readers
// are busy. look only reads: it must wait for nobody, nor call run.
func (r *readers) run(ctx context.Context, look func() error) error {
	j := r.idle.Get().(*job)
	j.look = look
	var err error
	select {
	case r.jobs <- j:
		err = <-j.err // soon; until then look's variables are the reader's
	case <-ctx.Done():
		err = ctx.Err()
	}
	j.look = nil
	r.idle.Put(j)
	return err
}

// close waits for the goroutines. Nobody calls run any more.
func (r *readers) close() {
	close(r.jobs)
	r.wg.Wait()
}

// look calls f, on another goroutine, with the newest view.
func (s *Store) look(ctx context.Context, f func(*view) error) error {
	v, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer s.release(v)
	return s.readers.run(ctx, func() error { return f(v) })
}
