package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func example() *Report {
	r := New([]string{"fanout"})
	for i := range 3 {
		f := float64(i + 1)
		r.Add("fanout", "a & b", "reprise", Sample{Rate: 90 * f, CPU: 2})
		r.Add("fanout", "a & b", "bare", Sample{Rate: 100 * f, CPU: 1})
	}
	us, bare := Key{"fanout", "a & b", "reprise"}, Key{"fanout", "a & b", "bare"}
	r.Ratio("rate", Rate, us, bare, 0.8, true)
	r.Ratio("cpu", CPU, us, bare, 1.25, false)
	r.Ratio("nothing", Rate, us, Key{"fanout", "a & b", "nobody"}, 1, false)
	r.Value("value", CPU, us, 0.5, 1.5, "s")
	return r
}

// TestChecks: ratios are of the rounds in pairs, and what was not measured is
// not met.
func TestChecks(t *testing.T) {
	r := example()
	for i, want := range []struct {
		value float64
		met   bool
		says  string
	}{{0.9, true, "met"}, {2, false, "NOT met, 60 % too much"}, {0, false, "not measured"}, {1.5, true, "met"}} {
		c := r.Checks[i]
		if c.Value != want.value || c.Met() != want.met || c.Verdict() != want.says {
			t.Errorf("%s: %v, %t, %q; want %+v", c.What, c.Value, c.Met(), c.Verdict(), want)
		}
	}
	if got := len(r.Unmet()); got != 2 {
		t.Error(got, " are not met, want 2")
	}
}

func TestSaveAndLoad(t *testing.T) {
	r := example()
	file, err := r.Save(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	var a, b strings.Builder
	if r.Text(&a) != nil || again.Text(&b) != nil || a.String() != b.String() || !strings.Contains(a.String(), "NOT met") {
		t.Errorf("saved\n%s\nloaded\n%s", &a, &b)
	}
}

// TestMerge: the second run has measured one case again, and another one.
func TestMerge(t *testing.T) {
	r, more := example(), New([]string{"replay"})
	more.Add("fanout", "a & b", "reprise", Sample{Rate: 7})
	more.Add("replay", "c", "reprise", Sample{Rate: 8})
	more.Value("value", Rate, Key{"replay", "c", "reprise"}, 0, 9, "s")
	r.Merge(more)
	for _, c := range []struct {
		scenario, name string
		want           float64
	}{{"fanout", "a & b", 7}, {"replay", "c", 8}} {
		if got, _ := r.Find(c.scenario, c.name, "reprise").Median(Rate); got != c.want {
			t.Errorf("%s: %v, want %v", c.scenario, got, c.want)
		}
	}
	if len(r.Series) != 3 || len(r.Checks) != 4 || r.Checks[3].Value != 8 {
		t.Errorf("%d series, %+v", len(r.Series), r.Checks)
	}
	var doc strings.Builder
	if r.Text(&doc) != nil || !strings.Contains(doc.String(), "; go run . replay") {
		t.Error(doc.String())
	}
}

// TestWriteDoc writes twice: only what is between the markers changes.
func TestWriteDoc(t *testing.T) {
	file := filepath.Join(t.TempDir(), "benchmarks.md")
	if err := os.WriteFile(file, []byte("before\n"+beginMarker+"\nold\n"+endMarker+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := example().WriteDoc(file); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := string(b)
	if !strings.HasPrefix(got, "before\n") || !strings.HasSuffix(got, "\nafter\n") || strings.Contains(got, "old") ||
		strings.Count(got, "### Budgets") != 1 || !strings.Contains(got, "(benchmarks/fanout-1.svg)") {
		t.Error(got)
	}
	svg, err := os.ReadFile(filepath.Join(filepath.Dir(file), "benchmarks", "fanout-1.svg"))
	if err != nil || !strings.Contains(string(svg), "a &amp; b") {
		t.Errorf("%v\n%s", err, svg)
	}
	if err := os.WriteFile(file, []byte("no markers"), 0o600); err != nil {
		t.Fatal(err)
	}
	if example().WriteDoc(file) == nil {
		t.Error("a document without a place for figures was written to")
	}
}
