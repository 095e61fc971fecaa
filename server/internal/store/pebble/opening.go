package pebble

import (
	db "github.com/cockroachdb/pebble/v2"
)

// opening is the time in which Pebble opens a directory. It then writes what
// its logs hold into a table, and where that fails, on a full disk for
// instance, it tries again for ever, or reports a fatal error and goes on. Here
// the first such failure ends the opening.
type opening struct {
	failed chan error    // unbuffered: whoever sends knows that open gave up
	done   chan struct{} // closed when open has succeeded
}

func newOpening() *opening {
	return &opening{failed: make(chan error), done: make(chan struct{})}
}

// open is db.Open, or the first error that giveUp is told.
func (o *opening) open(dir string, opts *db.Options) (*db.DB, error) {
	type result struct {
		db  *db.DB
		err error
	}
	s := newScheduler(o)
	opts.Experimental.CompactionScheduler = s
	opened := make(chan result, 1)
	go func() {
		d, err := db.Open(dir, opts)
		opened <- result{d, err}
	}()
	select {
	case r := <-opened:
		if r.err == nil {
			close(o.done)
		} else {
			s.Unregister() // Pebble forgets to
		}
		return r.db, r.err
	case err := <-o.failed:
		return nil, err
	}
}

func (o *opening) succeeded() bool {
	select {
	case <-o.done:
		return true
	default:
		return false
	}
}

// giveUp ends the opening, unless it succeeded, and then never returns. It is
// called with a lock of Pebble's held without which its manifest is not written,
// so that the directory stays as it is, for whoever opens it next. What was
// opened so far stays in memory until the process ends: there is no way to have
// Pebble let go of it.
func (o *opening) giveUp(err error) {
	select {
	case o.failed <- err:
		select {}
	case <-o.done:
	}
}
