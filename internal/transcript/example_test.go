package transcript

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The README's Go example is the program in testdata/example, which compiles.
func TestREADMEExample(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("testdata/example/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "```go\n"+string(program)+"```\n") {
		t.Error("the README's Go example is not testdata/example/main.go: make them the same")
	}
	vet := exec.CommandContext(t.Context(), "go", "vet", "./testdata/example")
	if out, err := vet.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
