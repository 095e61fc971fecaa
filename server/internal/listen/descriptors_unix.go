//go:build unix

package listen

import "golang.org/x/sys/unix"

// Descriptors returns how many files and connections this process may have
// open. Go has raised the soft limit to the hard one at its start.
func Descriptors() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return unlimited
	}
	return int(min(uint64(l.Cur), unlimited)) //nolint:unconvert // not everywhere is it of that type
}
