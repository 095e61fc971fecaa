package pebble

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// viaOf returns a name that follows the directory when it is moved; its own
// where there is no such name.
func viaOf(h *home) string {
	via := fmt.Sprintf("/proc/self/fd/%d", h.f.Fd())
	if info, err := os.Stat(via); err != nil || !os.SameFile(info, h.info) {
		return h.dir
	}
	return via
}

// readOnly reports whether nothing can be written in a directory any more.
func readOnly(dir *os.File) bool {
	var s unix.Statfs_t
	return unix.Fstatfs(int(dir.Fd()), &s) == nil && s.Flags&unix.ST_RDONLY != 0
}

// errHeld: the lock is somebody else's.
func errHeld(dir string) error {
	return fmt.Errorf("%w: %s: stop the server that uses it, or choose another directory", store.ErrLocked, dir)
}

// lockHome locks a directory for this store alone, twice: by its file LOCK, as
// Pebble and the releases before this one do, and itself, which no deletion of a
// file undoes.
func lockHome(dir *os.File, name string) (io.Closer, error) {
	if err := flock(dir, unix.LOCK_EX); err != nil {
		return nil, errHeld(name)
	}
	return lockFile(name, os.O_RDWR|os.O_CREATE, unix.F_WRLCK)
}

// flock locks a file or directory as it is open. A file system that knows no
// such locks is none of ours to refuse.
func flock(f *os.File, how int) error {
	err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return err
	}
	return nil
}

// lockFiles are the locks that this process has. The system gives a process any
// lock that it has already, and takes it away when any file of it is closed.
var lockFiles struct {
	sync.Mutex
	held map[string]int // how many share it; exclusive: it is not shared
}

const exclusive = -1

// lockFile locks the file LOCK of a directory. Its contents stay.
func lockFile(dir string, flag int, kind int16) (io.Closer, error) {
	name := filepath.Join(dir, lockName)
	lockFiles.Lock()
	defer lockFiles.Unlock()
	if n := lockFiles.held[name]; n == exclusive || n > 0 && kind == unix.F_WRLCK {
		return nil, errHeld(dir)
	}
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: data directory: %w", err)
	}
	spec := unix.Flock_t{Type: kind, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &spec); err != nil {
		err = fmt.Errorf("%w (%w)", errHeld(dir), err)
		return nil, errors.Join(err, f.Close())
	}
	if lockFiles.held == nil {
		lockFiles.held = make(map[string]int)
	}
	if lockFiles.held[name]++; kind == unix.F_WRLCK {
		lockFiles.held[name] = exclusive
	}
	return &heldLock{f, name}, nil
}

type heldLock struct {
	f    *os.File
	name string
}

func (l *heldLock) Close() error {
	lockFiles.Lock()
	defer lockFiles.Unlock()
	if lockFiles.held[l.name]--; lockFiles.held[l.name] <= 0 {
		delete(lockFiles.held, l.name)
	}
	return l.f.Close()
}

// writeLock replaces what the file LOCK says, durably.
func writeLock(lock io.Closer, text string) error {
	l, ok := lock.(*heldLock)
	if !ok {
		return errors.ErrUnsupported
	}
	_, err := l.f.WriteAt([]byte(text), 0)
	return errors.Join(err, l.f.Sync())
}

// shareHome keeps a server from opening a directory that is read, and changes
// nothing. known is false if it cannot be told whether one has it open.
func shareHome(dir string) (lock io.Closer, known bool, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, false, fmt.Errorf("store: data directory: %w", err)
	}
	if err := flock(f, unix.LOCK_SH); err != nil {
		return nil, false, errors.Join(errHeld(dir), f.Close())
	}
	held, err := lockFile(dir, os.O_RDONLY, unix.F_RDLCK)
	switch {
	case err == nil:
		return closers{held, f}, true, nil
	case errors.Is(err, store.ErrLocked):
		return nil, false, errors.Join(err, f.Close())
	}
	// No server has ever opened a directory without the file, a backup for
	// instance.
	return f, errors.Is(err, fs.ErrNotExist), nil
}

type closers []io.Closer

func (c closers) Close() (err error) {
	for _, one := range c {
		err = errors.Join(err, one.Close())
	}
	return err
}
