package session

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-chat/reprise/server/internal/store"
)

const (
	// flushEvery is how long acknowledgements are gathered before they are
	// stored: losing them costs a client that lost its own positions too a
	// replay of that long.
	flushEvery = 500 * time.Millisecond
	// flushParallel is how many sessions' positions are on their way to the
	// store at once; the store commits them together.
	flushParallel = 64
)

const checkpointPrefix = "cp_"

func checkpointID(n uint64) string { return checkpointPrefix + strconv.FormatUint(n, 36) }

// parseCheckpoint returns the number of a checkpoint id; ok is false if it is
// not one.
func parseCheckpoint(id string) (n uint64, ok bool) {
	digits, found := strings.CutPrefix(id, checkpointPrefix)
	if !found || len(digits) == 0 || len(digits) > 13 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 36, 64)
	return n, err == nil && checkpointID(n) == id
}

// schedule has s flushed soon. It does not block.
func (g *Registry) schedule(s *Session) {
	g.dirtyMu.Lock()
	defer g.dirtyMu.Unlock()
	g.dirty[s] = struct{}{}
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

// flusher stores acknowledged positions until ctx ends.
func (g *Registry) flusher(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.kick:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(flushEvery):
		}
		g.Flush(ctx)
	}
}

// Flush stores everything that has been acknowledged.
func (g *Registry) Flush(ctx context.Context) {
	g.dirtyMu.Lock()
	dirty := g.dirty
	g.dirty = make(map[*Session]struct{})
	g.dirtyMu.Unlock()

	var group errgroup.Group
	group.SetLimit(flushParallel)
	for s := range dirty {
		group.Go(func() error {
			if err := g.flush(ctx, s); err != nil && ctx.Err() == nil {
				g.opts.Logger.Warn("positions were not stored; will be tried again", "session", s.id, "error", err)
				g.schedule(s)
			}
			return nil
		})
	}
	_ = group.Wait() // flushes report for themselves
}

// flush stores the positions of s that are not stored yet. Flushes of one
// session do not run beside each other or beside an attach.
func (g *Registry) flush(ctx context.Context, s *Session) error {
	unlock, err := g.locks.lock(ctx, s.id)
	if err != nil {
		return err
	}
	defer unlock()
	g.mu.Lock()
	s.pins++ // so that a detached session is forgotten after, not during, this
	g.mu.Unlock()
	defer g.release(s)
	s.mu.Lock()
	attach, next, acks := s.attach.Load(), s.checkpoint+1, s.acks
	var ps []store.Position
	for _, p := range s.dirty {
		p.Checkpoint = next
		ps = append(ps, p)
	}
	ended := s.ended
	s.mu.Unlock()
	if len(ps) == 0 || ended {
		return nil
	}
	switch err := g.store.SavePositions(ctx, s.id, attach, next, ps); {
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrNotFound):
		return nil // the session has moved on without this process
	case err != nil:
		return err
	}
	if holder := s.saved(ps, next, attach); holder != nil {
		holder.Checkpointed(checkpointID(next), acks)
	}
	return nil
}

// saved notes what has been stored, and returns the holder to tell.
func (s *Session) saved(ps []store.Position, checkpoint, attach uint64) Holder {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkpoint = checkpoint
	for _, p := range ps {
		if now := s.dirty[p.Room]; now.Offset == p.Offset && now.Incarnation == p.Incarnation {
			delete(s.dirty, p.Room)
		}
	}
	if len(s.dirty) > 0 {
		s.registry.schedule(s)
	}
	if s.attach.Load() != attach {
		return nil
	}
	return s.holder
}
