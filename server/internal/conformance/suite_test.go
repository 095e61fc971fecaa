package main

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the lists of known failures anew")

// TestConnect runs Connect's suite: the reference client against both edges,
// and the TypeScript SDK's transports against the gateway. What fails has to be
// what known/ says, with the same words: what is mended is noticed as well as
// what breaks.
//
// Most of what is known is that the suite expects no details where this service
// promises an ErrorInfo. The rest is grpc-go's INTERNAL where a call has the
// wrong number of messages; Reprise's own services are read by package rpc,
// which answers otherwise.
func TestConnect(t *testing.T) {
	server, client := build(t), bundle(t)
	for _, edge := range []string{"native", "gateway"} {
		t.Run(edge, func(t *testing.T) {
			t.Parallel()
			suite(t, edge, "--conf", edge+".yaml", "--mode", "server", "--", server, "-edge", edge)
		})
	}
	// With a client and a server of one's own the runner leaves out what it has
	// for one side alone. Cancellation and sizes need neither of its own sides.
	more := []string{"--test-file", "gen/suites/client_cancellation.yaml", "--test-file", "gen/suites/server_message_size.yaml"}
	for _, transport := range []string{"websocket", "fetch"} {
		for name, files := range map[string][]string{transport: nil, transport + "-more": more} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				suite(t, name, slices.Concat([]string{"--conf", transport + ".yaml", "--mode", "both"}, files,
					[]string{"--", "node", "--experimental-websocket", client, transport, "----", server, "-edge", "gateway"})...)
			})
		}
	}
}

// bundle makes client.ts a program for Node.
func bundle(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "client.mjs")
	modules := filepath.Join("..", "..", "..", "web", "node_modules")
	cmd := exec.Command(filepath.Join(modules, ".bin", "esbuild"), "client.ts", "--bundle", "--platform=node", "--format=esm",
		"--target=node20", "--sourcemap=inline", "--tsconfig-raw={}", "--outfile="+path)
	// For client.ts and the code made from the suite, which have none above them.
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "conformance")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func suite(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command("connectconformance", args...)
	out, err := cmd.CombinedOutput()
	m := regexp.MustCompile(`(?m)^Total cases: (\d+)\n(\d+) passed, (\d+) failed`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("the suite did not run: %v\n%s", err, out)
	}
	t.Logf("%s of %s cases passed", m[2], m[1])
	got := failures(out)
	path := filepath.Join("known", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	known, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range difference(got, string(known)) {
		t.Errorf("fails: %s", c)
	}
	for _, c := range difference(string(known), got) {
		t.Errorf("does not fail as %s says (go test -update writes it anew): %s", path, c)
	}
}

// failures are the suite's failed cases, each with all that is wrong, without
// what differs from run to run.
func failures(out []byte) string {
	var cases []string
	for line := range bytes.Lines(out) {
		text := strings.TrimRight(string(line), "\n")
		switch {
		case strings.HasPrefix(text, "FAILED: "):
			cases = append(cases, strings.TrimPrefix(text, "FAILED: "))
		case strings.HasPrefix(text, "\t") && len(cases) > 0:
			cases[len(cases)-1] += "\n" + text
		}
	}
	if len(cases) == 0 {
		return ""
	}
	slices.Sort(cases)
	all := strings.Join(cases, "\n") + "\n"
	return regexp.MustCompile(`\d+\.\d+\.\d+\.\d+:\d+`).ReplaceAllString(all, "ADDRESS")
}

// difference returns the cases of a that are not the same in b.
func difference(a, b string) []string {
	split := func(s string) []string {
		var cases []string
		for line := range strings.Lines(s) {
			if strings.HasPrefix(line, "\t") && len(cases) > 0 {
				cases[len(cases)-1] += line
			} else {
				cases = append(cases, line)
			}
		}
		return cases
	}
	in := split(b)
	return slices.DeleteFunc(split(a), func(c string) bool { return slices.Contains(in, c) })
}
