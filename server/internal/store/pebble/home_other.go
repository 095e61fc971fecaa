//go:build !linux

package pebble

import (
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// viaOf returns the directory's own name: there is none that follows it.
func viaOf(h *home) string { return h.dir }

// readOnly is found out by the first write.
func readOnly(*os.File) bool { return false }

func lockHome(_ *os.File, dir string) (io.Closer, error) { return lockDir(vfs.Default, dir) }

func shareHome(dir string) (lock io.Closer, known bool, err error) {
	lock, err = lockDir(untouched{vfs.Default}, dir)
	return lock, true, err
}

// writeLock does nothing: Pebble's lock empties the file each time.
func writeLock(io.Closer, string) error { return nil }
