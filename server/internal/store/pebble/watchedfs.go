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
	logs   *logbook
	home   *home
}

// Unwrap returns the file system below, as Pebble's own wrappers do.
func (fs watchedFS) Unwrap() vfs.FS { return fs.FS }

func (fs watchedFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	return fs.watch(name, f, err, nil)
}

func (fs watchedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	if fs.logs.owns(name) {
		return fs.began(name, f, err)
	}
	if kindOf(fs.PathBase(name)) == fileManifest {
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
	if fs.logs.owns(from) {
		fs.logs.ended(from)
	}
	f, err := fs.FS.ReuseForWrite(from, to, c)
	if !fs.logs.owns(to) {
		return f, err
	}
	return fs.began(to, f, err)
}

func (fs watchedFS) Remove(name string) error {
	if fs.logs.owns(name) {
		fs.logs.ended(name)
	}
	return fs.FS.Remove(name)
}

// began notes a log that was made.
func (fs watchedFS) began(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	count, err := fs.logs.began(name)
	if err == nil {
		err = fs.home.writes(fs.PathBase(name))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return fs.watch(name, f, nil, count)
}

func (fs watchedFS) watch(name string, f vfs.File, err error, count *writtenLog) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	if count == nil {
		count = &writtenLog{}
	}
	return watchedFile{f, name, fs.failed, count}, nil
}

type watchedFile struct {
	vfs.File
	name   string
	failed func(error)
	count  *writtenLog
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
	f.count.written.Add(int64(n))
	return n, f.check(err)
}

func (f watchedFile) Sync() error     { return f.sync(f.File.Sync) }
func (f watchedFile) SyncData() error { return f.sync(f.File.SyncData) }

// sync counts what was written before.
func (f watchedFile) sync(do func() error) error {
	written := f.count.written.Load()
	if err := f.check(do()); err != nil {
		return err
	}
	f.count.synced.Store(written)
	return nil
}

func (f watchedFile) SyncTo(length int64) (fullSync bool, err error) {
	fullSync, err = f.File.SyncTo(length)
	return fullSync, f.check(err)
}
