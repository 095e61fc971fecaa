package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-chat/reprise/bench/internal/proc"
	"github.com/reprise-chat/reprise/bench/internal/report"
)

// TestMain lets the test binary be the servers that the scenarios start.
func TestMain(m *testing.M) {
	if os.Getenv(proc.ChildEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestRows runs every row with tiny sizes, against real processes: nothing it
// measures means anything, but every event must come once and in order, and
// every budget must have a figure.
func TestRows(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many processes")
	}
	command, err := proc.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			out, profiles := t.TempDir(), t.TempDir()
			root := newRoot([]string{r.name})
			var stdout, stderr bytes.Buffer
			root.SetOut(&stdout)
			root.SetErr(&stderr)
			root.SetArgs([]string{r.name, "--reprise", command, "--dir", t.TempDir(), "--out", out, "--rounds", "1", "--duration", "200ms", "--scale", "50", "--body", "40", "--profile", profiles})
			if err := root.ExecuteContext(t.Context()); err != nil {
				t.Fatalf("%v\n%s", err, &stderr)
			}
			files, err := filepath.Glob(filepath.Join(out, "*.json"))
			if err != nil || len(files) != 1 {
				t.Fatal(files, err)
			}
			saved, err := report.Load(files[0])
			if err != nil {
				t.Fatal(err)
			}
			// Every measured span has one, unless the server was killed in it.
			found, err := filepath.Glob(filepath.Join(profiles, r.name+"-*.pb.gz"))
			if err != nil || len(found) == 0 && r.name != "idle" && r.name != "stalled" {
				t.Errorf("profiles %v, %v", found, err)
			}
			if len(saved.Series) == 0 {
				t.Error("nothing was measured")
			}
			for _, c := range saved.Checks {
				// A server may find room for twenty connections in what it has, and
				// then there is nothing to divide by.
				if c.Missing && !strings.HasSuffix(c.What, "memory of bare") {
					t.Errorf("%s: there is no figure", c.What)
				}
			}
		})
	}
}
