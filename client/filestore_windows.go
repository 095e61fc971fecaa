package reprise

import (
	"os"

	"golang.org/x/sys/windows"
)

// lockFile takes the lock that ends with the process, however it ends.
func lockFile(f *os.File) error {
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	return windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, new(windows.Overlapped))
}

// syncDir does nothing: NTFS journals renames, and directories cannot be
// synced.
func syncDir(string) error { return nil }
