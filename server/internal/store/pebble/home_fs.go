package pebble

import (
	"errors"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// homeFS is a file system on which the names of a home's files lead into the
// directory that was opened, wherever that is by now: Pebble opens its files by
// name, and would make new ones in whatever directory has the name. Where the
// system has no way to say that, names are taken as they are.
type homeFS struct {
	vfs.FS
	h *home
}

// Unwrap implements vfs.FS: there is no way around it.
func (fs homeFS) Unwrap() vfs.FS { return nil }

// to returns the name to use for a name.
func (fs homeFS) to(name string) string {
	if name == fs.h.dir {
		return fs.h.via
	}
	if rest, ok := strings.CutPrefix(name, fs.h.dir+string(os.PathSeparator)); ok {
		return fs.h.via + string(os.PathSeparator) + rest
	}
	return name
}

// isDir reports whether a name is known to be that of a directory, and not of a
// link to one. A file system in memory has no links.
func (h *home) isDir(fsys vfs.FS, name string) bool {
	if h == nil {
		info, err := fsys.Stat(name)
		return err == nil && info.IsDir()
	}
	info, err := os.Lstat(homeFS{h: h}.to(name))
	return err == nil && info.IsDir()
}

// own returns the name of a file in the directory itself, else "".
func (fs homeFS) own(name string) string {
	if rest, ok := strings.CutPrefix(name, fs.h.dir+string(os.PathSeparator)); ok && !strings.ContainsRune(rest, os.PathSeparator) {
		return rest
	}
	return ""
}

// added notes a file that was made.
func (fs homeFS) added(name string, err error) error {
	if own := fs.own(name); own != "" && err == nil {
		fs.h.add(own)
	}
	return fs.plain(err)
}

// plain is an error with names as people know them.
func (fs homeFS) plain(err error) error {
	back := func(name string) string {
		if rest, ok := strings.CutPrefix(name, fs.h.via); ok {
			return fs.h.dir + rest
		}
		return name
	}
	if e := (*os.PathError)(nil); errors.As(err, &e) {
		e.Path = back(e.Path)
	}
	if e := (*os.LinkError)(nil); errors.As(err, &e) {
		e.Old, e.New = back(e.Old), back(e.New)
	}
	return err
}

func (fs homeFS) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, fs.plain(err)
	}
	return homeFile{f, fs}, nil
}

func (fs homeFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(fs.to(name), c)
	return fs.file(f, fs.added(name, err))
}

func (fs homeFS) Link(from, to string) error {
	return fs.added(to, fs.FS.Link(fs.to(from), fs.to(to)))
}

func (fs homeFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	return fs.file(fs.FS.Open(fs.to(name), opts...))
}

func (fs homeFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.OpenReadWrite(fs.to(name), c, opts...)
	return fs.file(f, fs.added(name, err))
}

func (fs homeFS) OpenDir(name string) (vfs.File, error) {
	return fs.file(fs.FS.OpenDir(fs.to(name)))
}

func (fs homeFS) Remove(name string) error {
	if own := fs.own(name); own != "" {
		fs.h.remove(own)
	}
	return fs.plain(fs.FS.Remove(fs.to(name)))
}

func (fs homeFS) RemoveAll(name string) error { return fs.plain(fs.FS.RemoveAll(fs.to(name))) }

func (fs homeFS) Rename(from, to string) error {
	if own := fs.own(from); own != "" {
		fs.h.remove(own)
	}
	return fs.added(to, fs.FS.Rename(fs.to(from), fs.to(to)))
}

func (fs homeFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if own := fs.own(from); own != "" {
		fs.h.remove(own)
	}
	f, err := fs.FS.ReuseForWrite(fs.to(from), fs.to(to), c)
	return fs.file(f, fs.added(to, err))
}

func (fs homeFS) MkdirAll(name string, mode os.FileMode) error {
	return fs.plain(fs.FS.MkdirAll(fs.to(name), mode))
}

func (fs homeFS) List(name string) ([]string, error) {
	names, err := fs.FS.List(fs.to(name))
	return names, fs.plain(err)
}

func (fs homeFS) Stat(name string) (vfs.FileInfo, error) {
	info, err := fs.FS.Stat(fs.to(name))
	return info, fs.plain(err)
}

func (fs homeFS) GetDiskUsage(name string) (vfs.DiskUsage, error) {
	usage, err := fs.FS.GetDiskUsage(fs.to(name))
	return usage, fs.plain(err)
}

// homeFile is a file whose errors have the name that people know.
type homeFile struct {
	vfs.File
	fs homeFS
}

func (f homeFile) Close() error { return f.fs.plain(f.File.Close()) }

func (f homeFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	return n, f.fs.plain(err)
}

func (f homeFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	return n, f.fs.plain(err)
}

func (f homeFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.fs.plain(err)
}

func (f homeFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	return n, f.fs.plain(err)
}

func (f homeFile) Sync() error     { return f.fs.plain(f.File.Sync()) }
func (f homeFile) SyncData() error { return f.fs.plain(f.File.SyncData()) }

func (f homeFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	return full, f.fs.plain(err)
}
