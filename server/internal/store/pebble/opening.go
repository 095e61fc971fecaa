package pebble

import (
	"errors"

	db "github.com/cockroachdb/pebble/v2"
)

// opening is the time in which Pebble opens a directory. It then writes what
// its logs hold into a table, and where that fails, on a full disk for
// instance, it tries again for ever, or reports a fatal error and goes on. Here
// the first such failure ends the opening.
type opening struct {
	failed chan error    // unbuffered: whoever sends knows that open gave up
	done   chan struct{} // closed when open has returned
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
	opened := make(chan result, 1)
	go func() {
		d, err := db.Open(dir, opts)
		opened <- result{d, err}
	}()
	select {
	case r := <-opened:
		close(o.done)
		return r.db, r.err
	case err := <-o.failed:
		return nil, errors.Join(errors.New("it was given up"), err)
	}
}

// giveUp ends the opening, if it has not ended, and then never returns. It is
// called with Pebble's lock held, so nothing is written to the directory any
// more, and whoever opens it next is alone. What was opened so far stays in
// memory until the process ends: there is no way to have Pebble let go of it.
func (o *opening) giveUp(err error) {
	select {
	case o.failed <- err:
		select {}
	case <-o.done:
	}
}
