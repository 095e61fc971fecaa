package pebble

import (
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reprise-chat/reprise/server/internal/store"
	"github.com/reprise-chat/reprise/server/internal/store/crashfs"
	"github.com/reprise-chat/reprise/server/internal/store/storetest"
)

// options are what tests use unless they are about the options.
func options(tb testing.TB) Options {
	tb.Helper()
	return Options{
		Logger:     slog.New(slog.DiscardHandler),
		CacheBytes: 1 << 20,
		SweepBatch: 7, // so that a trim takes several steps
		Fatal:      func(err error) { tb.Errorf("fatal: %v", err) },
	}
}

func mustOpen(tb testing.TB, dir string, o Options) *Store {
	tb.Helper()
	s, err := Open(dir, o)
	if err != nil {
		tb.Fatalf("Open: %v", err)
	}
	return s
}

func mustClose(tb testing.TB, s *Store) {
	tb.Helper()
	if err := s.Close(); err != nil {
		tb.Errorf("Close: %v", err)
	}
}

// onDisk is a Harness with a real directory.
func onDisk(tb testing.TB) storetest.Harness {
	tb.Helper()
	dir := tb.TempDir()
	s := mustOpen(tb, dir, options(tb))
	tb.Cleanup(func() { mustClose(tb, s) })
	return storetest.Harness{
		Store: s,
		Reopen: func() store.Store {
			mustClose(tb, s)
			s = mustOpen(tb, dir, options(tb))
			return s
		},
	}
}

// inMemory is a Harness whose power can be cut. percent is the chance of data
// that was not synced to be there afterwards.
func inMemory(tb testing.TB, o Options, percent int) storetest.Harness {
	tb.Helper()
	fs := crashfs.New()
	rng := rand.New(rand.NewPCG(rand.Uint64(), 0))
	o.FS = fs
	const dir = "none/of/these/exists" // so that each must be made durable
	s := mustOpen(tb, dir, o)
	closeOld := func() {}
	tb.Cleanup(func() { closeOld(); mustClose(tb, s) })
	return storetest.Harness{
		Store: s,
		Reopen: func() store.Store {
			mustClose(tb, s)
			s = mustOpen(tb, dir, o)
			return s
		},
		Crash: func() store.Store {
			closeOld()
			old := s
			closeOld = func() { mustClose(tb, old) }
			fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
			o.FS = fs
			s = mustOpen(tb, dir, o)
			return s
		},
	}
}

func TestOnDisk(t *testing.T) {
	storetest.Run(t, onDisk)
}

func TestInMemory(t *testing.T) {
	storetest.Run(t, func(tb testing.TB) storetest.Harness {
		tb.Helper()
		return inMemory(tb, options(tb), 0)
	})
}

func TestModel(t *testing.T) {
	t.Parallel()
	storetest.Model(t, inMemory(t, options(t), 0))
}
