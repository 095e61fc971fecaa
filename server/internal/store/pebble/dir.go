package pebble

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// dirMode keeps other users of the machine out.
const dirMode = 0o700

// makeDir makes the directory and returns its canonical name.
func makeDir(o Options, dir string) (string, error) {
	if o.FS != nil {
		return dir, mkdirDurable(o.FS, dir)
	}
	// The lock is taken by name within a process: two names of one directory
	// must not get past it.
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := mkdirDurable(vfs.Default, abs); err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// mkdirDurable makes dir and those above it, and syncs the parent of each that
// it made: otherwise a power cut could take away the whole directory, with
// everything that was synced in it.
func mkdirDurable(fsys vfs.FS, dir string) error {
	if _, err := fsys.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := fsys.PathDir(dir)
	if parent != dir {
		if err := mkdirDurable(fsys, parent); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(dir, dirMode); err != nil {
		return err
	}
	return syncDir(fsys, parent)
}

func syncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockDir takes the lock of the directory, by the file that Pebble locks too.
func lockDir(fsys vfs.FS, dir string) (io.Closer, error) {
	if err := refuseUnfinished(fsys, dir); err != nil {
		return nil, err
	}
	lock, err := fsys.Lock(fsys.PathJoin(dir, lockName))
	if err == nil {
		return lock, nil
	}
	// Only a failure to make the lock file is a *PathError. What else fails
	// is the lock itself, held by this process or another one.
	if pathErr := (*os.PathError)(nil); errors.As(err, &pathErr) {
		return nil, fmt.Errorf("store: data directory: %w", err)
	}
	return nil, fmt.Errorf("%w: %s: stop the server that uses it, or choose another directory (%w)",
		store.ErrLocked, dir, err)
}

// shareDir keeps servers from opening a directory on a disk while it is read.
func shareDir(dir string) (lock io.Closer, known bool, err error) {
	if err := refuseUnfinished(vfs.Default, dir); err != nil {
		return nil, false, err
	}
	return shareHome(dir)
}

// lockedFS is a file system on which the directory is locked already: it can be
// given back although Pebble never closes what it could not open.
type lockedFS struct{ vfs.FS }

// Unwrap returns the file system below, as Pebble's own wrappers do.
func (fs lockedFS) Unwrap() vfs.FS { return fs.FS }

// Lock does nothing.
func (lockedFS) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }
