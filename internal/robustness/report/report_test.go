package report

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const docs = "../../../docs/"

// TestPromises requires that docs/promises.md has the table that docs/faults.json
// makes, and that a run that lost or repeated anything is not what it shows.
func TestPromises(t *testing.T) {
	results, err := Read(docs + "faults.json")
	if err != nil || len(results) == 0 {
		t.Fatalf("no results: %v", err)
	}
	for _, r := range results {
		if r.Fault == "" || r.Test == "" || r.Times == 0 || r.Acknowledged == 0 || r.Delivered == 0 {
			t.Errorf("nothing happened here: %+v", r)
		}
		if r.Lost+r.Repeated+r.Violations > 0 {
			t.Errorf("a promise was broken here: %+v", r)
		}
	}
	document, err := os.ReadFile(docs + "promises.md")
	if err != nil {
		t.Fatal(err)
	}
	made, err := Insert(string(document), Table(results))
	if err != nil {
		t.Fatal(err)
	}
	if made != string(document) {
		t.Error("docs/promises.md has another table than docs/faults.json makes: run go run ./internal/robustness/table")
	}
}

func TestAdd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	if results, err := Read(path); err != nil || results != nil {
		t.Fatalf("a report that is not there: %v, %v", results, err)
	}
	for _, r := range []Result{{Fault: "b", Test: "T", Times: 1}, {Fault: "a", Test: "T", Times: 2}, {Fault: "b", Test: "T", Times: 3}} {
		if err := Add(path, r); err != nil {
			t.Fatal(err)
		}
	}
	results, err := Read(path)
	if err != nil || len(results) != 2 || results[0].Times != 3 || results[1].Times != 2 {
		t.Errorf("%+v, %v", results, err)
	}
	if err := os.WriteFile(path, []byte("[{]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Add(path, Result{}); err == nil {
		t.Error("a damaged report was added to")
	}
}

func TestTable(t *testing.T) {
	table := Table([]Result{
		{Fault: "later", Test: "U", Times: 1, Acknowledged: 1234567, SlowestRecoveryMS: 12345},
		{Fault: "sooner", Test: "T", Times: 20, Acknowledged: 999, Delivered: 1000, Lost: 1, Repeated: 2, SlowestRecoveryMS: 27},
	})
	lines := strings.Split(strings.TrimSuffix(table, "\n"), "\n")
	want := []string{
		"| sooner | 20 | 999 | 1,000 | 0 | 0 | 1 | 2 | 27 ms | `T` |",
		"| later | 1 | 1,234,567 | 0 | 0 | 0 | 0 | 0 | 12.3 s | `U` |",
		"| **together** | 21 | 1,235,566 | 1,000 | 0 | 0 | 1 | 2 | 12.3 s |  |",
	}
	if !slices.Equal(lines[2:], want) {
		t.Errorf("got\n%s", table)
	}
	for _, line := range lines {
		if strings.Count(line, "|") != strings.Count(lines[0], "|") {
			t.Errorf("another number of columns: %s", line)
		}
	}
}

func TestInsert(t *testing.T) {
	got, err := Insert("one\n"+Begin+"\nold\n"+End+"\ntwo\n", "new\n")
	if want := "one\n" + Begin + "\nnew\n" + End + "\ntwo\n"; err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{"", Begin + "\n", End + "\n" + Begin + "\n", Begin + "\n" + Begin + "\n" + End + "\n"} {
		if _, err := Insert(bad, ""); !errors.Is(err, ErrNoPlace) {
			t.Errorf("%q has a place: %v", bad, err)
		}
	}
}
