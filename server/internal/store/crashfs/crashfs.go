// Package crashfs is a file system in memory for tests that cut the power.
package crashfs

import (
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// FS is a crashable [vfs.MemFS] that can be cloned while it is used. ReuseForWrite
// of the latter takes the lock that keeps clones out twice, and waits for ever
// for the second time if a clone has come to wait in between. Here the two take
// turns. All methods may be called concurrently.
type FS struct {
	*vfs.MemFS
	turn sync.Mutex // of ReuseForWrite and CrashClone
}

// New returns an empty file system.
func New() *FS { return &FS{MemFS: vfs.NewCrashableMem()} }

// ReuseForWrite implements [vfs.FS].
func (fs *FS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	fs.turn.Lock()
	defer fs.turn.Unlock()
	return fs.MemFS.ReuseForWrite(from, to, c)
}

// CrashClone returns what may be on the disk if the power is cut now.
func (fs *FS) CrashClone(c vfs.CrashCloneCfg) *FS {
	fs.turn.Lock()
	defer fs.turn.Unlock()
	return &FS{MemFS: fs.MemFS.CrashClone(c)}
}
