package pebble

import "github.com/cockroachdb/pebble/v2/vfs"

// neverFS is a file system whose files never reach the disk by themselves: what
// the rule fault.SyncNothing makes of the disk, so that losing power loses what
// losing the process does not.
type neverFS struct{ vfs.FS }

// Unwrap implements vfs.FS: there is no way around it.
func (fs neverFS) Unwrap() vfs.FS { return nil }

func (fs neverFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return never(fs.FS.Create(name, c))
}

func (fs neverFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return never(fs.FS.OpenReadWrite(name, c, opts...))
}

func (fs neverFS) OpenDir(name string) (vfs.File, error) { return never(fs.FS.OpenDir(name)) }

func (fs neverFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return never(fs.FS.ReuseForWrite(from, to, c))
}

type neverFile struct{ vfs.File }

func never(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return neverFile{f}, nil
}

func (neverFile) Sync() error                { return nil }
func (neverFile) SyncData() error            { return nil }
func (neverFile) SyncTo(int64) (bool, error) { return true, nil }
