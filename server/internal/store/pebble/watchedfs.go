package pebble

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var errLost = errors.New("store: the disk lost a write")

// watchedFS is the file system as Pebble gets it. Where a write or a sync of a
// log fails, or a sync of the directory, Pebble panics, or tries again later, as
// if a sync that failed could be made up for. Here it is the end of the store.
type watchedFS struct {
	vfs.FS
	failed func(error)
}

// Unwrap returns the file system below, as Pebble's own wrappers do.
func (fs watchedFS) Unwrap() vfs.FS { return fs.FS }

func (fs watchedFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	return fs.watch(name, f, err)
}

func (fs watchedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	switch kindOf(fs.PathBase(name)) {
	case fileLog:
		return fs.watch(name, f, err)
	case fileManifest:
		// Pebble syncs the directory once for the manifest and for the marker that
		// names it, and a crash may keep the marker alone.
		if err != nil {
			return nil, err
		}
		if err := syncDir(fs, fs.PathDir(name)); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, err
}

func (fs watchedFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(from, to, c)
	if kindOf(fs.PathBase(to)) != fileLog {
		return f, err
	}
	return fs.watch(to, f, err)
}

func (fs watchedFS) watch(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return watchedFile{f, name, fs.failed}, nil
}

type watchedFile struct {
	vfs.File
	name   string
	failed func(error)
}

func (f watchedFile) check(err error) error {
	if err != nil {
		err = fmt.Errorf("%w: %s: %w", errLost, f.name, err)
		f.failed(err)
	}
	return err
}

func (f watchedFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.check(err)
}

func (f watchedFile) Sync() error     { return f.check(f.File.Sync()) }
func (f watchedFile) SyncData() error { return f.check(f.File.SyncData()) }

func (f watchedFile) SyncTo(length int64) (fullSync bool, err error) {
	fullSync, err = f.File.SyncTo(length)
	return fullSync, f.check(err)
}
