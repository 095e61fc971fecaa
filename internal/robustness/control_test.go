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

// mustNotice requires that a scenario fails when a rule of the server is broken,
// and says which promise that breaks.
func mustNotice(t *testing.T, rule, test, promise string, env ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^"+test+"$", "-test.v")
	cmd.Env = append(append(os.Environ(), "REPRISE_BROKEN="+rule, binaryEnv+"="+binary(t, "faults"), "REPRISE_REPORT=", "TMPDIR="+t.TempDir()), env...)
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "--- SKIP") {
		t.Skipf("%s is skipped here:\n%s", test, out)
	}
	if err == nil || !strings.Contains(string(out), promise) {
		t.Errorf("%s does not notice that %s is broken (%v), or does not say %q:\n%s", test, rule, err, promise, out)
	}
	for line := range strings.SplitSeq(string(out), "\n") {
		if strings.Contains(line, promise) {
			t.Logf("%s noticed: %s", test, strings.TrimSpace(line))
			break
		}
	}
}
