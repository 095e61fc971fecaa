package robustness

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// tags are the build tags of a server that may have a rule broken, as
// REPRISE_BROKEN says: see package fault.
func tags() string {
	if os.Getenv("REPRISE_BROKEN") != "" {
		return "faults"
	}
	return ""
}

// tries is how often a scenario may run with a rule broken until it notices:
// whether it shows depends on the moments at which faults strike.
const tries = 5

// mustNotice requires that a scenario fails when a rule of the server is broken,
// and says which promise that breaks.
func mustNotice(t *testing.T, rule, test, promise string, env ...string) {
	t.Helper()
	env = append(env, "REPRISE_BROKEN="+rule, binaryEnv+"="+binary(t, "faults"), "REPRISE_REPORT=")
	var out string
	for try := 1; try <= tries; try++ {
		var failed bool
		if out, failed = runBroken(t, test, env); !failed || !strings.Contains(out, promise) {
			continue
		}
		for line := range strings.SplitSeq(out, "\n") {
			if strings.Contains(line, promise) {
				t.Logf("%s noticed at try %d: %s", test, try, strings.TrimSpace(line))
				return
			}
		}
	}
	t.Errorf("%s does not notice in %d tries that %s is broken, or does not say %q:\n%s", test, tries, rule, promise, out)
}

func runBroken(t *testing.T, test string, env []string) (out string, failed bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^"+test+"$", "-test.v")
	cmd.Env = append(append(os.Environ(), "TMPDIR="+t.TempDir()), env...)
	b, err := cmd.CombinedOutput()
	if strings.Contains(string(b), "--- SKIP") {
		t.Skipf("%s is skipped here:\n%s", test, b)
	}
	return string(b), err != nil
}
