package pebble

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reprise-chat/reprise/server/internal/fault"
)

// SyncMode says when writes are synced to disk.
type SyncMode string

const (
	// SyncAlways syncs every batch before it is acknowledged. The default, and
	// the only mode in which an acknowledged event survives the loss of power.
	SyncAlways SyncMode = "always"
	// SyncNever leaves it to the operating system. Acknowledged events can be
	// lost, even to kill -9: for benchmarks and throw-away data.
	SyncNever SyncMode = "never"
)

// Options of a store. The zero value is for production on a disk.
type Options struct {
	// FS is the file system; nil is the disk. With a file system in memory
	// the store works inside a testing/synctest bubble.
	FS vfs.FS
	// Logger; nil is slog.Default().
	Logger *slog.Logger
	// CacheBytes is the size of the cache of blocks; 0 is 64 MiB.
	CacheBytes int64
	// OpenFiles is how many files of the store may be open at once; 0 is 1,000.
	OpenFiles int
	// Reserve is how many bytes of the disk must be free for appends to be
	// accepted. 0 is 1 GiB or 5 % of the disk, whichever is smaller; negative
	// is no reserve. Looked at once a second.
	Reserve int64
	// Sync is the sync mode; empty is SyncAlways.
	Sync SyncMode
	// Fatal is called once when durability can no longer be promised. nil
	// logs the error and exits with status 1, which is the only safe thing to
	// do outside a test. It may be called on any goroutine.
	Fatal func(error)
	// SweepBatch is how many events one step of a trim removes; 0 is 4,096.
	SweepBatch int
	// MaxQueued is how many bytes of appends may wait for the committer
	// before further ones are refused with store.ErrQueueFull; 0 is 256 MiB. It is a
	// last resort: callers bound what they have outstanding.
	MaxQueued int
}

const (
	defaultCacheBytes = 64 << 20
	defaultSweepBatch = 4096
	defaultMaxQueued  = 256 << 20
)

func (o Options) withDefaults() (Options, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCacheBytes
	}
	if o.SweepBatch == 0 {
		o.SweepBatch = defaultSweepBatch
	}
	if o.MaxQueued == 0 {
		o.MaxQueued = defaultMaxQueued
	}
	if o.Fatal == nil {
		logger := o.Logger
		o.Fatal = func(err error) {
			logger.Error("the store failed: exiting, so that nothing more is acknowledged", "error", err)
			os.Exit(1)
		}
	}
	switch o.Sync {
	case "":
		o.Sync = SyncAlways
	case SyncAlways, SyncNever:
	default:
		return o, fmt.Errorf("store: unknown sync mode %q: use %q or %q", o.Sync, SyncAlways, SyncNever)
	}
	return o, nil
}

// fs returns the file system to use.
func (o Options) fs() vfs.FS {
	if o.FS != nil {
		return o.FS
	}
	if fault.Broken(fault.SyncNothing) {
		return neverFS{vfs.Default}
	}
	return vfs.Default
}
