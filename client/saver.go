package reprise

import (
	"context"
	"fmt"
	"time"
)

// ackDelay is how long what was handled waits for more, to be saved and
// acknowledged together.
const ackDelay = 200 * time.Millisecond

// saver saves what was handled and then has it acknowledged. Its goroutine is
// the only one that calls the store's Save.
type saver struct {
	book      *ledger
	store     PositionStore
	threshold int // bytes that do not wait for ackDelay

	soon    chan struct{} // capacity 1
	now     chan struct{} // capacity 1
	flushes chan chan error
	ended   chan struct{} // closed when run has returned; err is set before
	err     error
}

func newSaver(book *ledger, store PositionStore, window int) *saver {
	return &saver{
		book:      book,
		store:     store,
		threshold: min(32<<10, max(window/2, 1)),
		soon:      make(chan struct{}, 1),
		now:       make(chan struct{}, 1),
		flushes:   make(chan chan error),
		ended:     make(chan struct{}),
	}
}

// handled says that something was handled and waiting bytes are not
// acknowledged.
func (s *saver) handled(waiting int) {
	if waiting >= s.threshold {
		signal(s.now)
		return
	}
	signal(s.soon)
}

// flush saves everything handled so far before it returns.
func (s *saver) flush(ctx context.Context) error {
	reply := make(chan error, 1)
	select {
	case s.flushes <- reply:
		return <-reply
	case <-s.ended:
		return s.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// run saves until ctx ends or the store fails.
func (s *saver) run(ctx context.Context) error {
	defer close(s.ended)
	s.err = s.loop(ctx)
	return s.err
}

func (s *saver) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	timer.Stop()
	armed := false
	for {
		var reply chan error
		select {
		case <-ctx.Done():
			return nil
		case <-s.soon:
			if !armed {
				armed = true
				timer.Reset(ackDelay)
			}
			continue
		case <-timer.C:
		case <-s.now:
		case reply = <-s.flushes:
		}
		timer.Stop()
		armed = false
		err := s.save(ctx)
		if reply != nil {
			reply <- err
		}
		if err != nil {
			return err
		}
	}
}

func (s *saver) save(ctx context.Context) error {
	update, via, acks := s.book.changes()
	if update.Session != nil || len(update.Places) > 0 || len(update.Closed) > 0 {
		if err := s.store.Save(ctx, update); err != nil {
			return fmt.Errorf("reprise: saving positions: %w", err)
		}
		s.book.savedUpdate(update)
	}
	if via != nil && len(acks) > 0 {
		via.acknowledge(acks)
	}
	return nil
}
