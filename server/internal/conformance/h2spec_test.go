package main

import (
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
)

// TestH2spec runs h2spec against the native edge's options and against a bare
// grpc-go server. About 26 of its 145 cases fail at both, some of them now and
// then: what fails only here, time after time, is a fault of ours.
func TestH2spec(t *testing.T) {
	t.Parallel()
	tool := filepath.Join(t.TempDir(), "h2spec")
	if out, err := exec.Command("go", "build", "-o", tool, "github.com/summerwind/h2spec/cmd/h2spec").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ours, theirs := both(t, tool)
	if len(ours) == 0 || len(theirs) == 0 {
		t.Fatalf("%d cases failed here, %d at a bare server: they did not run", len(ours), len(theirs))
	}
	only := func() []string {
		return slices.DeleteFunc(slices.Clone(ours), func(c string) bool { return slices.Contains(theirs, c) })
	}
	// A case that comes and goes at both may fail here and pass there, by chance
	// once, but not five times over.
	for range 4 {
		if len(only()) == 0 {
			break
		}
		again, there := both(t, tool)
		ours = slices.DeleteFunc(ours, func(c string) bool { return !slices.Contains(again, c) })
		theirs = append(theirs, there...)
	}
	if left := only(); len(left) > 0 {
		t.Errorf("these fail here and not at a bare grpc-go server:\n%s", strings.Join(left, "\n"))
	}
	t.Logf("%d cases fail here time after time", len(ours))
}

// both runs h2spec here and at a bare server, side by side.
func both(t *testing.T, tool string) (ours, theirs []string) {
	t.Helper()
	bare := make(chan []string, 1)
	// With the same limit: without one its case does not apply.
	go func() { bare <- h2spec(t, tool, grpc.MaxConcurrentStreams(100)) }()
	ours = h2spec(t, tool, nativeOptions(4<<20)...)
	return ours, <-bare
}

// h2spec returns the names of the cases that fail at a server with options.
func h2spec(t *testing.T, tool string, options ...grpc.ServerOption) []string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Error(err)
		return nil
	}
	s := grpc.NewServer(options...)
	go func() { _ = s.Serve(l) }()
	defer s.Stop()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	out, _ := exec.Command(tool, "-h", "127.0.0.1", "-p", port, "-o", "2").CombinedOutput() // it fails if a case does
	if !strings.Contains(string(out), "145 tests,") {
		t.Errorf("h2spec did not run: %s", out)
	}
	_, failures, _ := strings.Cut(string(out), "Failures:")
	var names []string
	section := ""
	for line := range strings.Lines(failures) {
		if m := regexp.MustCompile(`^\s*(\d+(?:\.\d+)*)\. `).FindStringSubmatch(line); m != nil {
			section = m[1]
		}
		if m := regexp.MustCompile(`× (\d+: .*)`).FindStringSubmatch(line); m != nil {
			names = append(names, section+" "+strings.TrimSpace(m[1]))
		}
	}
	return names
}
