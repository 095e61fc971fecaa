package pebble

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
	"weak"

	db "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// formatVersion is the version of the table of keys in the package comment.
const formatVersion = 2

// Store is a [store.Store] in one directory.
type Store struct {
	// Set by Open and never changed.
	opts        Options
	dir         string
	logger      *slog.Logger
	incarnation string
	firstRooms  uint64 // number of the newest room when the store was opened
	db          *db.DB
	unlock      func() error
	home        *home
	reserve     *reserve
	ledger      *ledger
	logs        *logbook
	opening     *opening
	complaints  complaints
	readers     *readers

	// The way of a write: queue, committer, notifier.
	queue     *queue
	committer *committer

	mu   sync.Mutex // held for a few instructions, never across I/O
	view *view      // guarded by mu; nil once closed
	// reading has the acquired views that were not released.
	reading sync.WaitGroup

	roomsMu sync.Mutex
	// rooms has the rooms that a Log or a queued write refers to: while it is
	// referred to, there is one. Guarded by roomsMu.
	rooms map[string]weak.Pointer[room]
	// sweepAt is the size of rooms at which those no longer used are removed.
	sweepAt int // guarded by roomsMu

	failOnce sync.Once
	failed   chan struct{}
	failure  error // set before failed is closed
	closing  sync.Once
}

var _ store.Store = (*Store)(nil)

// Open opens the store in dir, which is made if it does not exist. The error
// wraps [store.ErrLocked] if dir is open already, here or in another process.
func Open(dir string, o Options) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	dir, err = makeDir(o, dir)
	if err != nil {
		return nil, fmt.Errorf("store: data directory: %w", err)
	}
	lock, h, fsys, err := o.take(dir)
	if err != nil {
		return nil, err
	}
	o.FS = fsys
	s := &Store{
		opts:        o,
		dir:         dir,
		logger:      o.Logger,
		incarnation: mintIncarnation(),
		unlock:      lock.Close,
		home:        h,
		queue:       newQueue(o.MaxQueued),
		rooms:       make(map[string]weak.Pointer[room]),
		failed:      make(chan struct{}),
		opening:     newOpening(),
	}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return s, nil
}

// take locks the directory. On a disk the store holds on to it from here on, and
// not to its name.
func (o Options) take(dir string) (lock io.Closer, h *home, fsys vfs.FS, err error) {
	if o.FS != nil {
		lock, err = lockDir(o.FS, dir)
		return lock, nil, o.FS, err
	}
	if h, err = openHome(dir, o.Logger); err != nil {
		return nil, nil, nil, err
	}
	return h, h, homeFS{o.fs(), h}, nil
}

func (s *Store) open() error {
	var err error
	if err := checkLog(s.opts.fs(), s.dir); err != nil {
		return openError(s.dir, err)
	}
	if s.ledger, err = openLedger(s.opts.fs(), s.dir, s.logger); err != nil {
		return openError(s.dir, err)
	}
	if s.logs, err = openLogbook(s.opts.fs(), s.dir, s.logger); err != nil {
		return openError(s.dir, err)
	}
	if s.db, err = s.opening.open(s.dir, s.pebbleOptions()); err != nil {
		return openError(s.dir, readError(err))
	}
	if err := s.start(); err != nil {
		return errors.Join(err, s.db.Close())
	}
	s.removeLinks()
	s.home.mark()
	s.home.watch(s.fatal, s.logs.note)
	if s.opts.Sync != SyncAlways {
		s.logger.Warn("writes are not synced: acknowledged events can be lost, promise P1 is not given",
			"sync", s.opts.Sync)
	}
	s.logger.Info("store open", "dir", s.dir, "incarnation", s.incarnation)
	return nil
}

// openError says which directory does not open, and what to do if that is known.
func openError(dir string, err error) error {
	if vfs.IsNoSpaceError(err) {
		return fmt.Errorf("store: open %s: the disk is full: nothing is lost; free some space and start again: %w", dir, err)
	}
	return fmt.Errorf("store: open %s: %w", dir, err)
}

// start reads what the committer needs and starts the goroutines.
func (s *Store) start() error {
	if err := s.checkFormat(); err != nil {
		return err
	}
	lastRoom, err := getUint64(s.db, keyLastRoom)
	if err != nil {
		return err
	}
	s.firstRooms = lastRoom
	version, err := getUint64(s.db, keyVersion)
	if err != nil {
		return err
	}
	s.publish(version, nil)
	s.readers = newReaders()
	s.reserve = watchReserve(s.opts, s.dir)
	s.committer = newCommitter(s, lastRoom, version)
	return nil
}

func (s *Store) checkFormat() error {
	format, err := getUint64(s.db, keyFormat)
	if err != nil {
		return err
	}
	if format > formatVersion {
		return fmt.Errorf("store: %s has format %d, and this release knows up to %d: use the release that wrote it, or a newer one",
			s.dir, format, formatVersion)
	}
	if format == formatVersion {
		return nil
	}
	return s.upgrade()
}

func (s *Store) pebbleOptions() *db.Options {
	o := &db.Options{
		FS:     watchedFS{lockedFS{s.opts.fs()}, s.fatal, s.logs, s.home},
		Logger: pebbleLogger{s},
		// The zero value is the oldest format, which takes a damaged log record
		// for the end of the log and drops what follows without a word.
		FormatMajorVersion:          db.FormatNewest,
		CacheSize:                   s.opts.CacheBytes,
		MaxOpenFiles:                s.opts.OpenFiles,
		MemTableSize:                32 << 20,
		MemTableStopWritesThreshold: 4,
		EventListener:               s.listener(),
	}
	for i := range o.Levels {
		// A client that comes back reads some tens of kilobytes of one room.
		o.Levels[i].BlockSize = 32 << 10
		// A Lookup of a client id that was never used, the usual one, then
		// reads no table.
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return o
}

// mintIncarnation returns 65 random bits.
func mintIncarnation() string {
	var b [9]byte
	_, _ = rand.Read(b[:]) // never fails
	return "i_" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:])[:13])
}

// Incarnation implements [store.Store].
func (s *Store) Incarnation() string { return s.incarnation }

// Failed implements [store.Store].
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Writable implements [store.Store].
func (s *Store) Writable() error {
	if err := s.failedError(); err != nil {
		return err
	}
	if s.queue.isClosed() {
		return store.ErrClosed
	}
	if s.reserve.low() {
		return store.ErrDiskReserve
	}
	return nil
}

// fail ends the promise of durability, once and for all. Whoever finds another
// failure waits here for Fatal, which ends the process.
func (s *Store) fail(err error) {
	s.failOnce.Do(func() {
		s.failure = err
		close(s.failed)
		s.opts.Fatal(err)
	})
}

// fatal is told what Pebble cannot go on after: it ends the opening, or the
// store.
func (s *Store) fatal(err error) {
	s.opening.giveUp(err)
	s.fail(err)
}

// failedError is ErrClosed with the reason if the store failed, else nil.
func (s *Store) failedError() error {
	select {
	case <-s.failed:
		return fmt.Errorf("%w: %w", store.ErrClosed, s.failure)
	default:
		return nil
	}
}

// closedError says why a store that is closed is.
func (s *Store) closedError() error {
	if err := s.failedError(); err != nil {
		return err
	}
	return store.ErrClosed
}

// Close implements [store.Store].
func (s *Store) Close() error {
	err := store.ErrClosed
	s.closing.Do(func() { err = s.close() })
	return err
}

func (s *Store) close() error {
	s.queue.close()
	s.committer.wait()
	s.home.stop()
	s.reserve.stop()
	s.mu.Lock()
	last := s.view
	s.view = nil
	s.mu.Unlock()
	s.reading.Wait()
	s.readers.close()
	s.drop(last)
	s.settle()
	// Pebble syncs its log once more.
	return errors.Join(s.db.Close(), s.unlock())
}

// settleFor bounds how long closing waits for its flush: one that fails is
// tried again for ever.
const settleFor = 10 * time.Second

// settle writes what only the logs hold into tables, so that the next opening
// has nothing to replay. Should that fail, the logs still have it.
func (s *Store) settle() {
	if s.failedError() != nil || s.reserve.low() {
		return
	}
	flushed, err := s.db.AsyncFlush()
	if err != nil {
		s.logger.Warn("not flushed at close: the next start replays the log", "error", err)
		return
	}
	limit := time.NewTimer(settleFor)
	defer limit.Stop()
	select {
	case <-flushed:
	case <-s.failed:
	case <-limit.C:
		s.logger.Warn("not flushed at close in time: the next start replays the log", "waited", settleFor)
	}
}

// Rooms implements [store.Store].
func (s *Store) Rooms(ctx context.Context, after string, limit int) ([]string, error) {
	lower := roomKey("")
	upper := prefixEnd(lower)
	if after != "" {
		lower = keyAfter(roomKey(after))
	}
	var names []string
	err := s.look(ctx, func(v *view) error {
		if limit <= 0 {
			return nil
		}
		return scan(v.snap, lower, upper, func(key, _ []byte) (bool, error) {
			names = append(names, string(key[1:]))
			return len(names) < limit, ctx.Err()
		})
	})
	return names, err
}

// UserRooms implements [store.Store].
func (s *Store) UserRooms(ctx context.Context, user string) (rooms []store.UserRoom, version uint64, err error) {
	prefix := userRoomPrefix(user)
	err = s.look(ctx, func(v *view) error {
		version = v.version
		return scan(v.snap, prefix, prefixEnd(prefix), func(key, value []byte) (bool, error) {
			r, err := decodeUserRoom(string(key[len(prefix):]), value)
			if err != nil {
				return false, badRecord(key, err)
			}
			rooms = append(rooms, r)
			return true, ctx.Err()
		})
	})
	if err != nil {
		return nil, 0, err
	}
	return rooms, version, nil
}

// CountRooms implements [store.Store].
func (s *Store) CountRooms(ctx context.Context, user string) (n int, err error) {
	key := countsKey(user)
	err = s.look(ctx, func(v *view) error {
		value, ok, err := get(v.snap, key)
		if err != nil {
			return err
		}
		if ok {
			c, err := decodeCounts(value)
			if err != nil {
				return badRecord(key, err)
			}
			n = int(c.GetRooms())
			return nil
		}
		prefix := userRoomPrefix(user) // nothing has changed since format 1
		return scan(v.snap, prefix, prefixEnd(prefix), func(key, value []byte) (bool, error) {
			r, err := decodeUserRoom("", value)
			if err != nil {
				return false, badRecord(key, err)
			}
			if r.Joined {
				n++
			}
			return true, ctx.Err()
		})
	})
	return n, err
}

// Invitations implements [store.Store].
func (s *Store) Invitations(ctx context.Context, user, from string, limit int) (all []store.Invitation, err error) {
	if limit <= 0 {
		return nil, ctx.Err()
	}
	prefix := invitedPrefix(user)
	err = s.look(ctx, func(v *view) error {
		return scan(v.snap, invitedKey(user, from), prefixEnd(prefix), func(key, value []byte) (bool, error) {
			i, err := decodeInvitation(string(key[len(prefix):]), user, value)
			if err != nil {
				return false, badRecord(key, err)
			}
			all = append(all, i)
			return len(all) < limit, ctx.Err()
		})
	})
	return all, err
}

// CountInvitations implements [store.Store].
func (s *Store) CountInvitations(ctx context.Context, user, by string) (n int, err error) {
	err = s.look(ctx, func(v *view) error {
		given, err := getUint64(v.snap, givenKey(user, by))
		n = int(given)
		return err
	})
	return n, err
}
