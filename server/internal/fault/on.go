//go:build faults

package fault

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var (
	killAt, killAfter = parse(os.Getenv("REPRISE_KILL"))
	broken            = os.Getenv("REPRISE_BROKEN")
	reached           atomic.Int64
)

func parse(s string) (point string, n int64) {
	point, count, found := strings.Cut(s, ":")
	if !found {
		return point, 1
	}
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil || n < 1 {
		panic("REPRISE_KILL=" + s + ": want point:n")
	}
	return point, n
}

// Point is where the process may be killed.
func Point(name string) {
	if name == killAt && reached.Add(1) == killAfter {
		// So that whoever finds the process dead knows that it died here.
		_, _ = fmt.Fprintf(os.Stderr, "fault: killed at %s, pass %d\n", name, killAfter)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way: go no further
	}
}

// Broken reports whether a rule is to be broken.
func Broken(rule string) bool { return rule == broken }
