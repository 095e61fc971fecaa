package pebble

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reprise-chat/reprise/server/internal/fault"
)

// home is the data directory that was opened: itself, and not what has its name
// by now. Whatever is done to the name, nothing is read or written elsewhere
// ([homeFS]), and it is noticed: by the committer before it acknowledges
// ([home.check]), and within a second by a look at everything ([home.look]). A nil
// home is a directory in memory, to which nothing is done.
type home struct {
	dir    string // its canonical name
	via    string // a name that follows it; dir if there is none
	f      *os.File
	info   os.FileInfo // of f
	lock   io.Closer
	locked os.FileInfo // of the lock's file
	logger *slog.Logger

	mu sync.Mutex
	// files are there, by what was done through homeFS: those without which the
	// directory is not whole.
	files map[string]bool // guarded by mu
	log   string          // the log that is written, ""; guarded by mu
	logAt os.FileInfo     // of it; guarded by mu
	seen  time.Time       // when the directory had last changed; for look alone

	quit chan struct{}
	wg   sync.WaitGroup
}

// goneError says that the directory is not what it was.
type goneError struct{ dir, what string }

func (e *goneError) Error() string {
	return fmt.Sprintf("store: the data directory %s %s while it was served: nothing more is acknowledged. "+
		"Start the server again on the directory that has the data", e.dir, e.what)
}

// openHome opens a directory and locks it, for this store alone. The error wraps
// store.ErrLocked if another one has it.
func openHome(dir string, logger *slog.Logger) (*home, error) {
	if err := refuseUnfinished(vfs.Default, dir); err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("store: data directory: %w", err)
	}
	h := &home{dir: dir, f: f, logger: logger, files: make(map[string]bool), quit: make(chan struct{})}
	if err := h.open(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return h, nil
}

func (h *home) open() (err error) {
	if h.info, err = h.f.Stat(); err != nil {
		return fmt.Errorf("store: data directory: %w", err)
	}
	h.via = viaOf(h)
	if h.lock, err = lockHome(h.f, h.dir); err != nil {
		return err
	}
	names, err := h.f.Readdirnames(-1)
	if err == nil {
		h.locked, err = os.Stat(filepath.Join(h.dir, lockName))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("store: data directory: %w", err), h.lock.Close())
	}
	for _, name := range names {
		h.add(name)
	}
	return nil
}

// needed reports whether a directory without that file is not whole.
func needed(name string) bool {
	return kindOf(name) != fileOther || name == sumName || name == logsName || strings.HasPrefix(name, "marker.")
}

func (h *home) add(name string) {
	if h == nil || !needed(name) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.files[name] = true
}

func (h *home) remove(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.files, name)
}

func (h *home) has(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.files[name]
}

// writes says which log is written from now on.
func (h *home) writes(name string) error {
	if h == nil {
		return nil
	}
	info, err := os.Stat(filepath.Join(h.via, name))
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log, h.logAt = name, info
	return nil
}

// check looks whether the directory's name and that of the log still lead to
// what was opened: two calls of the system, some microseconds.
func (h *home) check() error {
	if h == nil || fault.Broken(fault.FollowName) {
		return nil
	}
	if err := h.same(h.dir, h.info, "was moved or deleted", "was replaced by another one"); err != nil {
		return err
	}
	h.mu.Lock()
	name, info := h.log, h.logAt
	h.mu.Unlock()
	if name == "" {
		return nil
	}
	return h.same(filepath.Join(h.dir, name), info, "lost its log of writes, "+name+",", "got another file as "+name)
}

// same compares what has a name with what had it. What cannot be looked at is no
// reason to stop: what is written goes where it went before.
func (h *home) same(name string, was os.FileInfo, gone, replaced string) error {
	is, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &goneError{h.dir, gone}
	case err == nil && !os.SameFile(is, was):
		return &goneError{h.dir, replaced}
	}
	return nil
}

// look looks at all that check does, and at the lock, the file system and the
// files.
func (h *home) look(everything bool) error {
	if err := h.check(); err != nil {
		return err
	}
	if err := h.same(filepath.Join(h.dir, lockName), h.locked, "lost its file "+lockName, "got another file "+lockName); err != nil {
		return err
	}
	if readOnly(h.f) {
		return &goneError{h.dir, "became read-only"}
	}
	info, err := h.f.Stat()
	if err != nil || !everything && info.ModTime().Equal(h.seen) {
		return nil //nolint:nilerr // as in same
	}
	h.seen = info.ModTime()
	return h.lookForFiles()
}

// lookForFiles looks whether a file is missing.
func (h *home) lookForFiles() error {
	h.mu.Lock()
	want := make([]string, 0, len(h.files))
	for name := range h.files {
		want = append(want, name)
	}
	h.mu.Unlock()
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return nil //nolint:nilerr // as in same
	}
	for _, name := range want {
		if _, found := slices.BinarySearchFunc(entries, name, func(e os.DirEntry, name string) int {
			return strings.Compare(e.Name(), name)
		}); found {
			continue
		}
		// It may have been removed by the store meanwhile, or the list may be of
		// the moment before it was made.
		if _, err := os.Lstat(filepath.Join(h.dir, name)); errors.Is(err, fs.ErrNotExist) && h.has(name) {
			return &goneError{h.dir, "lost its file " + name}
		}
	}
	return nil
}

const (
	lookEvery = 200 * time.Millisecond
	lookAtAll = 4 // of so many looks one is at everything
)

// watch looks until stop is called. note is called when everything was well,
// about once a second.
func (h *home) watch(failed func(error), note func()) {
	if h == nil {
		return
	}
	h.wg.Go(func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for n := 1; ; n++ {
			select {
			case <-h.quit:
				return
			case <-tick.C:
			}
			all := n%lookAtAll == 0
			if err := h.look(all); err != nil {
				failed(err)
				return
			}
			if all {
				note()
			}
		}
	})
}

// stop ends watch.
func (h *home) stop() {
	if h == nil {
		return
	}
	close(h.quit)
	h.wg.Wait()
}

// lockText is what the file LOCK says once a store was made. A directory in which
// nothing but that is left is not a new one.
const lockText = "This directory holds a store of Reprise. Every other file of it is needed.\n"

// mark makes the file LOCK say so.
func (h *home) mark() {
	if h == nil || h.locked.Size() > 0 {
		return
	}
	if err := writeLock(h.lock, lockText); err != nil {
		h.logger.Warn("store: the file LOCK could not be written: if everything else is deleted, that will look like a new directory", "dir", h.dir, "error", err)
	}
}

// Close gives the lock back.
func (h *home) Close() error { return errors.Join(h.lock.Close(), h.f.Close()) }
