package pebble

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	db "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// pebbleLogger passes on what Pebble logs.
type pebbleLogger struct{ s *Store }

// Infof implements Pebble's Logger.
func (l pebbleLogger) Infof(format string, args ...any) {
	if l.s.logger.Enabled(context.Background(), slog.LevelDebug) {
		l.s.logger.Debug("pebble", "message", plainText(fmt.Sprintf(format, args...)))
	}
}

// Errorf implements Pebble's Logger.
func (l pebbleLogger) Errorf(format string, args ...any) {
	l.s.logger.Error("pebble", "message", plainText(fmt.Sprintf(format, args...)))
}

// plainText removes from a text of Pebble's the line by which an error carries
// details for programs.
func plainText(text string) string {
	return strings.ReplaceAll(text, "\n<corruption detail carrier>", "")
}

// Fatalf implements Pebble's Logger. Pebble calls it where it cannot go on,
// above all when a sync failed.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.s.fatal(failure(format, args))
}

// failure is what Pebble says, and wraps the errors that it says it with.
func failure(format string, args []any) error {
	errs := []error{errors.New(plainText(fmt.Sprintf(format, args...)))}
	for _, a := range args {
		if err, ok := a.(error); ok {
			errs = append(errs, err)
		}
	}
	return &reported{errs}
}

// reported is an error of which only the first part is shown.
type reported struct{ errs []error }

func (r *reported) Error() string   { return r.errs[0].Error() }
func (r *reported) Unwrap() []error { return r.errs }

// listener reports what an operator should know.
func (s *Store) listener() *db.EventListener {
	return &db.EventListener{
		BackgroundError: s.backgroundError,
		ManifestCreated: func(info db.ManifestCreateInfo) {
			if info.Err == nil {
				s.ledger.use(info.Path)
			}
		},
		// Pebble panics next, if it is not this that ends the process.
		WALCreated: func(info db.WALCreateInfo) {
			if info.Err != nil {
				s.fatal(fmt.Errorf("store: a new log of writes could not be made: %w", info.Err))
			}
		},
		// Pebble deletes the logs and tables that were replaced after these.
		FlushEnd:      func(db.FlushInfo) { s.noteManifest() },
		CompactionEnd: func(db.CompactionInfo) { s.noteManifest() },
		// The default ends the process. A damaged block concerns the readers of
		// that block, who get an error; everything else is served.
		DataCorruption: func(info db.DataCorruptionInfo) {
			s.logger.Error("store: a damaged block was found: restore the directory from a backup",
				"file", filepath.Base(info.Path), "error", plainError{info.Details})
		},
		DiskSlow: func(info db.DiskSlowInfo) {
			s.logger.Warn("store: the disk is slow", "path", info.Path, "op", info.OpType.String(), "took", info.Duration)
		},
		WriteStallBegin: func(info db.WriteStallBeginInfo) {
			s.logger.Warn("store: writes wait for the disk", "reason", info.Reason)
		},
		WriteStallEnd: func() { s.logger.Info("store: writes go on") },
	}
}

// noteManifest is called, with Pebble's lock held, when the manifest says what
// was written.
func (s *Store) noteManifest() {
	if s.failedError() == nil {
		s.ledger.note()
	}
}

// retryPause keeps work that fails at once from being tried, and logged, as
// often as the processor can. Commits may wait for it, reads do not.
const retryPause = 50 * time.Millisecond

// backgroundError is called, with Pebble's lock held, when a flush or a
// compaction failed, and before it is tried again.
func (s *Store) backgroundError(err error) {
	if errors.Is(err, db.ErrCancelledCompaction) {
		return
	}
	s.opening.giveUp(err)
	s.complaints.report(func(times int) {
		s.logger.Error("store: background work failed; it is tried again, and publishes will wait for it in the end",
			"error", plainError{err}, "times", times, "disk_full", vfs.IsNoSpaceError(err))
	})
	time.Sleep(retryPause)
}

// complaints bounds how often the same thing is logged.
type complaints struct {
	mu    sync.Mutex
	last  time.Time
	since int
}

const complainEvery = 5 * time.Second

// report calls say if it is time, with how many calls there were since then.
func (c *complaints) report(say func(times int)) {
	c.mu.Lock()
	c.since++
	times, now := c.since, time.Now()
	due := now.Sub(c.last) >= complainEvery
	if due {
		c.last, c.since = now, 0
	}
	c.mu.Unlock()
	if due {
		say(times)
	}
}
