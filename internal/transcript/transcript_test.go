package transcript

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

const example = "# Title\n" + "```sh\nnot run\n```\n" + begin + `
Some words.

` + "```sh\nA=1; echo \"id: s_$A\"\necho two\n```\n\n" + "```json\nid: s_…\ntwo\n```\n" + `
More words.

` + "```sh\ntest $A = 1\n```\n" + "An aside.\n" + "```text\nnot the output\n```\n" + end + "\n```sh\nnot run\n```\n"

func TestParse(t *testing.T) {
	got, err := Parse(example)
	if err != nil {
		t.Fatal(err)
	}
	want := []Step{
		{Line: 9, Commands: "A=1; echo \"id: s_$A\"\necho two\n", Output: "id: s_…\ntwo\n", HasOutput: true},
		{Line: 21, Commands: "test $A = 1\n"},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, document := range []string{
		"", "```sh\necho\n```", begin + "\n" + end, begin + "\n```sh\necho\n```\n",
		begin + "\n```sh\necho\n", end, begin + "\n" + begin,
	} {
		if steps, err := Parse(document); err == nil {
			t.Errorf("%q was taken for %v", document, steps)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		want, got string
		match     bool
	}{
		{"a\nb\n", "a\nb\n", true},
		{"a\nb\n", "a\n", false},
		{"a\n", "a\nb\n", false},
		{"a\n", "b\n", false},
		{"", "", true},
		{"", "a", false},
		{"{ \"id\": \"s_…\" }", "{   \"id\":  \"s_1\" }\n\n", true},
		{"s_…\"", "s_1\"2", false},
		{"a.c", "abc", false},
		{"a\n…\nz", "a\nz", true},
		{"a\n…\nz", "a\nb\nc\nz", true},
		{"a\n…\nz", "a\nb\nc", false},
		{"…\nz\n", "a\nz\nz\n", true},
	} {
		if err := Match(c.want, c.got); (err == nil) != c.match {
			t.Errorf("%q against %q: %v", c.want, c.got, err)
		}
	}
}

func TestShell(t *testing.T) {
	shell, err := Start(t.TempDir(), os.Environ())
	if err != nil {
		t.Fatal(err)
	}
	defer shell.Close()
	steps, err := Parse(example)
	if err != nil {
		t.Fatal(err)
	}
	steps = append(steps,
		Step{Commands: "cat; sleep 1000 &\necho err >&2; printf 'no newline'", Output: "err\nno newline", HasOutput: true},
		Step{Commands: "(exit 3)", HasOutput: true}) // the output decides
	for _, step := range steps {
		if err := shell.Check(t.Context(), step); err != nil {
			t.Error(err)
		}
	}
	if err := shell.Check(t.Context(), Step{Commands: "(exit 3)"}); err == nil {
		t.Error("a step without output failed and was taken")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := shell.Check(ctx, Step{Commands: "sleep 1000"}); err == nil {
		t.Error("a step that does not end was taken")
	}
}

// TestP12_READMETranscript runs the README's commands as somebody does who reads
// it from the top: in the directory of the sources, with the server of "Run it"
// still there, on a machine that is busy with something else. It needs the real
// grpcurl, which `make test-transcript` puts on the PATH.
func TestP12_READMETranscript(t *testing.T) {
	if os.Getenv("REPRISE_TRANSCRIPT") == "" {
		t.Skip("needs grpcurl: `make test-transcript` runs it")
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	steps, err := Parse(string(readme))
	if err != nil {
		t.Fatal("README.md: ", err)
	}
	if _, err := exec.LookPath("grpcurl"); err != nil {
		t.Fatal("grpcurl is not on the PATH: `make test-transcript` installs it and puts it there")
	}
	takeDefaultPorts(t)
	spin(t, runtime.NumCPU())
	dir := t.TempDir()
	shell, err := Start("../..", append(os.Environ(), "TMPDIR="+dir, "REPRISE_ADDR="+freeAddress(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer shell.Close()
	for _, step := range steps {
		began := time.Now()
		// Patient: the first step builds, on a processor that it shares.
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		err := shell.Check(ctx, step)
		cancel()
		if err != nil {
			logs, _ := filepath.Glob(filepath.Join(dir, "*", "server.log"))
			for _, name := range logs {
				log, _ := os.ReadFile(name)
				t.Logf("%s:\n%s", name, log)
			}
			t.Fatalf("README.md:%d: %v", step.Line, err)
		}
		t.Logf("README.md:%d passed in %v", step.Line, time.Since(began).Round(time.Millisecond))
	}
	refusesTakenPort(t, steps[0])
}

// refusesTakenPort has the first step find somebody else at its address: it
// must say so, and not go on with a server that is not the one it started.
func refusesTakenPort(t *testing.T, first Step) {
	t.Helper()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	shell, err := Start("../..", append(os.Environ(), "TMPDIR="+t.TempDir(), "REPRISE_ADDR="+taken.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer shell.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	printed, status, err := shell.Run(ctx, first.Commands)
	if err != nil || status == 0 || !strings.Contains(printed, "is taken") {
		t.Errorf("with the port taken, the first step ends with status %d, %v, and prints\n%s", status, err, printed)
	}
}

// takeDefaultPorts listens where the server of "Run it" does. Who else has such
// a port serves as well.
func takeDefaultPorts(t *testing.T) {
	t.Helper()
	for _, address := range []string{"127.0.0.1:9090", "127.0.0.1:8080"} {
		if l, err := net.Listen("tcp", address); err == nil {
			t.Cleanup(func() { l.Close() })
		}
	}
}

// freeAddress returns an address that nobody listened on a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// spin keeps n processors busy until the test ends.
func spin(t *testing.T, n int) {
	t.Helper()
	for range n {
		busy := exec.Command("sh", "-c", "while :; do :; done")
		if err := busy.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = busy.Process.Kill() // it ends in no other way
			_ = busy.Wait()
		})
	}
}
