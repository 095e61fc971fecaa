package robustness

import (
	"os"
	"strconv"
	"testing"
)

// needFaults skips a scenario unless it was asked for: it builds the command
// and takes its time.
func needFaults(t testing.TB) {
	t.Helper()
	if os.Getenv("REPRISE_FAULTS") == "" {
		t.Skip("runs the real server under faults: `make test-faults` does")
	}
}

// times returns how often a scenario is to do it: what an environment variable
// says, or usual.
func times(t testing.TB, variable string, usual int) int {
	t.Helper()
	s := os.Getenv(variable)
	if s == "" {
		return usual
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a number of times", variable, s)
	}
	return n
}
