package pebble

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// untouched is a file system on which nothing can be changed: a check must be
// safe on the only copy there is, and work on a medium that is read-only.
type untouched struct{ vfs.FS }

// Lock locks a file that exists. Where there is none, no server has ever
// opened the directory, a backup for instance, and it is not made.
func (u untouched) Lock(name string) (io.Closer, error) {
	if _, err := u.FS.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(nil), nil
	}
	return u.FS.Lock(name)
}

func (u untouched) Create(string, vfs.DiskWriteCategory) (vfs.File, error) { return nil, errReadOnly }
func (u untouched) Link(string, string) error                              { return errReadOnly }
func (u untouched) Remove(string) error                                    { return errReadOnly }
func (u untouched) RemoveAll(string) error                                 { return errReadOnly }
func (u untouched) Rename(string, string) error                            { return errReadOnly }
func (u untouched) MkdirAll(string, os.FileMode) error                     { return errReadOnly }

func (u untouched) OpenReadWrite(string, vfs.DiskWriteCategory, ...vfs.OpenOption) (vfs.File, error) {
	return nil, errReadOnly
}

func (u untouched) ReuseForWrite(string, string, vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, errReadOnly
}
