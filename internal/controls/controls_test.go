package controls

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// controls are the rules that can be broken, and the tests that must notice.
// The names of the rules are those of package fault.
var controls = []struct {
	rule, promise, tests string
	pkg                  string // of the tests; empty: server
}{
	{"ack-before-sync", "P1", "TestP1_PowerLossTornWrites", "server/internal/store/pebble"},
	{"forget-logs", "P1", "TestP1_LostLog", "server/internal/store/pebble"},
	{"follow-name", "P1", "TestP1_Outside", "server/internal/store/pebble"},
	{"skip-on-resume", "P2", "TestP2_ResumeWhileOthersPublish", ""},
	{"ignore-incarnation", "P2", "TestP2_RestoredLogRewinds", ""},
	{"share-incarnation", "P2", "TestP2_RoomMadeAgainRewinds", ""},
	{"skip-unavailable", "P2", "TestP2_RoomThatCannotBeRead", ""},
	{"subscribe-late", "P3", "TestP3_NothingLiveBeforeCaughtUp", ""},
	{"forget-client-id", "P4", "TestP4_RetryIsOneEvent", ""},
	{"dedupe-separately", "P4", "TestP4_PowerLossKeepsClientIDs", "server/internal/store/pebble"},
	{"stay-failed", "P4", "TestP4_RefusedAppendHarmsNoOther", "server/internal/room"},
	{"session-first", "P4", "TestP4_RetryAfterTheSessionEnded", ""},
	{"ignore-fence", "P5", "TestP5_NothingAfterTheWelcome", ""},
	{"fence-in-memory", "P5", "TestP5_PowerLossKeepsTheFence", "server/internal/store/pebble"},
	{"drop-slow", "P6", "TestP6_StalledReaders", ""},
	{"decode-anything", "P6", "TestBadFrames", "server/internal/rpc"},
	{"forget-rooms", "P7", "TestP7_GainedAndLostWhileAway", ""},
	{"tell-once", "P7", "TestP7_LostWelcomesTellAgain", ""},
	{"expire-sessions", "P8", "TestP8_QuietRooms", ""},
	{"believe-clock", "P8", "TestP8_ClockAhead", "server/internal/room"},
	{"evict-by-clock", "P8", "TestP8_ClockStepEndsNoNewSession", "server/internal/session"},
	{"keep-no-slots", "P10", "TestP10_Storm", "server/internal/limit"},
	{"name-everything", "P13", "TestP13_HandshakeBytes", ""},
}

func TestControls(t *testing.T) {
	if os.Getenv("REPRISE_CONTROLS") == "" {
		t.Skip("builds and breaks the server: `make test-controls` runs it")
	}
	binaries := make(map[string]string)
	for i, c := range controls {
		if c.pkg == "" {
			controls[i].pkg = "server"
		}
		pkg := controls[i].pkg
		if binaries[pkg] != "" {
			continue
		}
		binaries[pkg] = filepath.Join(t.TempDir(), "test")
		build := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "faults", "-o", binaries[pkg], "../../"+pkg)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for _, c := range controls {
		t.Run(c.promise+" "+c.rule, func(t *testing.T) {
			// With nothing broken it must pass, or its failure says nothing.
			if out, failed := run(t, binaries[c.pkg], c.pkg, c.tests, ""); failed {
				t.Fatalf("%s fails although nothing is broken:\n%s", c.tests, tail(out))
			}
			// What a broken rule does may depend on who is first: it has to show in
			// one of a few runs.
			var out string
			var failed bool
			for try := 0; try < 4 && !failed; try++ {
				out, failed = run(t, binaries[c.pkg], c.pkg, c.tests, c.rule)
			}
			if !failed {
				t.Errorf("%s passes although the rule is broken", c.tests)
			}
			t.Logf("%s noticed: %s", c.tests, firstComplaint(out))
		})
	}
}

// run runs tests with a rule broken. One that waits for what never comes has
// noticed too.
func run(t *testing.T, binary, pkg, tests, rule string) (out string, failed bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run", "^("+tests+")$", "-test.timeout", "20s")
	cmd.Dir = "../../" + pkg
	cmd.Env = append(os.Environ(), "REPRISE_BROKEN="+rule)
	b, err := cmd.CombinedOutput()
	if strings.Contains(string(b), "no tests to run") {
		t.Fatalf("there is no test %s", tests)
	}
	return string(b), err != nil
}

func tail(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// firstComplaint returns the line in which a test says what is wrong.
func firstComplaint(out string) string {
	for line := range strings.SplitSeq(out, "\n") {
		if strings.Contains(line, "_test.go:") {
			return strings.TrimSpace(line)
		}
	}
	return "(no line of a test)"
}
