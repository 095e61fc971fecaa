package pebble

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	db "github.com/cockroachdb/pebble/v2"
)

// pebbleLogger passes on what Pebble logs.
type pebbleLogger struct{ s *Store }

// Infof implements Pebble's Logger.
func (l pebbleLogger) Infof(format string, args ...any) {
	if l.s.logger.Enabled(context.Background(), slog.LevelDebug) {
		l.s.logger.Debug("pebble", "message", fmt.Sprintf(format, args...))
	}
}

// Errorf implements Pebble's Logger.
func (l pebbleLogger) Errorf(format string, args ...any) {
	l.s.logger.Error("pebble", "message", fmt.Sprintf(format, args...))
}

// Fatalf implements Pebble's Logger. Pebble calls it where it cannot go on,
// above all when a sync failed.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.s.fail(fmt.Errorf(format, args...))
}

// listener reports what an operator should know.
func (s *Store) listener() *db.EventListener {
	return &db.EventListener{
		BackgroundError: func(err error) {
			if !errors.Is(err, db.ErrCancelledCompaction) {
				s.logger.Error("store: background work failed; it is tried again", "error", err)
			}
		},
		// The default ends the process. A damaged block concerns the readers of
		// that block, who get an error; everything else is served.
		DataCorruption: func(info db.DataCorruptionInfo) {
			s.logger.Error("store: a damaged block was found: restore the directory from a backup",
				"path", info.Path, "error", info.Details)
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
