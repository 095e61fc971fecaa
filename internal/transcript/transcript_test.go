package transcript

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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

// TestP12_READMETranscript runs the README's commands with the real grpcurl
// against a real server. They name the default ports, so it runs only where
// REPRISE_TRANSCRIPT says that these are free; `make test` does.
func TestP12_READMETranscript(t *testing.T) {
	if os.Getenv("REPRISE_TRANSCRIPT") == "" {
		t.Skip("needs grpcurl and the default ports: `make test-transcript` runs it")
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
	for _, address := range []string{"127.0.0.1:9090", "127.0.0.1:8080"} {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatalf("the transcript needs %s: end the server that has it (%v)", address, err)
		}
		listener.Close()
	}
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "reprise"), "./cmd/reprise")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	shell, err := Start(dir, append(os.Environ(), "HOME="+dir))
	if err != nil {
		t.Fatal(err)
	}
	defer shell.Close()
	for _, step := range steps {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := shell.Check(ctx, step)
		cancel()
		if err != nil {
			log, _ := os.ReadFile(filepath.Join(dir, "server.log"))
			t.Fatalf("README.md:%d: %v\nserver.log:\n%s", step.Line, err, log)
		}
		t.Logf("README.md:%d passed in %v", step.Line, time.Since(began).Round(time.Millisecond))
	}
}
