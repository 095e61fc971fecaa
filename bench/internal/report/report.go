// Package report is what a benchmark found: rounds, the checks against the
// budgets, and how they are written down.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// Metric is something that was measured. Its name has the unit in it.
type Metric string

// The metrics.
const (
	Rate      Metric = "events/s"             // delivered or acknowledged
	P50       Metric = "p50 ms"               // of the waiting time
	P99       Metric = "p99 ms"               //
	P999      Metric = "p99.9 ms"             //
	CPU       Metric = "CPU s/M"              // server's CPU seconds for a million events
	Allocs    Metric = "allocs/event"         // server's allocations for one event
	RSS       Metric = "RSS MB"               // server's resident memory at the end
	PerConn   Metric = "KB/connection"        // resident memory that one more connection costs
	Seconds   Metric = "seconds"              // how long it took
	MaxMedian Metric = "slowest/median"       // of the clients' waiting times
	Attempts  Metric = "attempts/client"      // to connect
	Attach    Metric = "attach CPU ms"        // server's CPU for one attach
	Start     Metric = "start-up ms"          // from exec until it listens
	Probe     Metric = "probe p99 ms"         // of the others, while something happens
	ProbeBase Metric = "probe p99 ms, before" // of the others, before that
	Crowd     Metric = "crowd p99 ms"         // of those who are the something
)

// Sample is one round of one server in one case.
type Sample map[Metric]float64

// Series is all rounds of one server in one case.
type Series struct {
	Scenario string   `json:"scenario"`
	Case     string   `json:"case"`
	Target   string   `json:"target"`
	Rounds   []Sample `json:"rounds"`
}

// Median returns the median of a metric, and whether there is one.
func (s *Series) Median(m Metric) (float64, bool) {
	var all []float64
	for _, r := range s.Rounds {
		if v, ok := r[m]; ok {
			all = append(all, v)
		}
	}
	return median(all), len(all) > 0
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	if n := len(v) / 2; len(v)%2 == 0 {
		return (v[n-1] + v[n]) / 2
	}
	return v[len(v)/2]
}

// Check is a figure that has a budget.
type Check struct {
	// What is measured against what.
	What string `json:"what"`
	// Value is the figure, a ratio unless Unit says otherwise.
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
	// Budget is what it must be at most, or, with AtLeast, at least.
	Budget  float64 `json:"budget"`
	AtLeast bool    `json:"at_least,omitempty"`
	// Missing: there was nothing to measure.
	Missing bool `json:"missing,omitempty"`
}

// Met reports whether the budget is met.
func (c Check) Met() bool {
	if c.Missing {
		return false
	}
	if c.AtLeast {
		return c.Value >= c.Budget
	}
	return c.Value <= c.Budget
}

// Verdict says whether, and by how much not.
func (c Check) Verdict() string {
	switch {
	case c.Missing:
		return "not measured"
	case c.Met():
		return "met"
	case c.AtLeast:
		return fmt.Sprintf("NOT met, %.0f %% too little", 100*(1-c.Value/c.Budget))
	}
	return fmt.Sprintf("NOT met, %.0f %% too much", 100*(c.Value/c.Budget-1))
}

func (c Check) bound() string {
	sign := "≤"
	if c.AtLeast {
		sign = "≥"
	}
	return strings.TrimSpace(sign + " " + number(c.Budget) + " " + c.Unit)
}

// Report is one run.
type Report struct {
	Commit  string    `json:"commit"`
	Time    time.Time `json:"time"`
	Machine string    `json:"machine"`
	Cores   int       `json:"cores"`
	Kernel  string    `json:"kernel"`
	Go      string    `json:"go"`
	// Versions of the modules that matter.
	Versions map[string]string `json:"versions"`
	Command  string            `json:"command"`
	// Load is the machine's load average before: other work spoils figures.
	Load   string    `json:"load_before"`
	Took   float64   `json:"took_seconds"`
	Series []*Series `json:"series"`
	Checks []Check   `json:"checks"`
	// Notes say what a reader must know to understand a figure.
	Notes []string `json:"notes,omitempty"`
}

// Merge adds what another run found, and has it stand for what this one found of
// the same. Both must have run the same server: the commit is not looked at,
// because that of a benchmark may change between them.
func (r *Report) Merge(other *Report) {
	for _, s := range other.Series {
		same := func(have *Series) bool {
			return have.Scenario == s.Scenario && have.Case == s.Case && have.Target == s.Target
		}
		r.Series = append(slices.DeleteFunc(r.Series, same), s)
	}
	for _, c := range other.Checks {
		same := func(have Check) bool { return have.What == c.What }
		r.Checks = append(slices.DeleteFunc(r.Checks, same), c)
	}
	r.Notes = append(r.Notes, other.Notes...)
	r.Command += "; " + other.Command
	r.Took += other.Took
}

// New describes this machine and this program.
func New(command []string) *Report {
	r := &Report{
		Commit: output("git", "describe", "--always", "--dirty"), Time: time.Now().UTC().Truncate(time.Second),
		Machine: machine(), Cores: runtime.NumCPU(), Kernel: firstField("/proc/sys/kernel/osrelease"),
		Go: runtime.Version(), Command: "go run . " + strings.Join(command, " "), Load: firstField("/proc/loadavg"),
		Versions: make(map[string]string),
	}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, m := range b.Deps {
			switch m.Path {
			case "google.golang.org/grpc", "github.com/cockroachdb/pebble/v2", "golang.org/x/net":
				r.Versions[m.Path] = m.Version
			}
		}
	}
	return r
}

func output(name string, args ...string) string {
	b, err := exec.Command(name, args...).Output() //nolint:noctx,gosec // the command is a constant of ours, and quick
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

func firstField(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	f := strings.Fields(string(b))
	if len(f) == 0 {
		return "unknown"
	}
	return f[0]
}

func machine() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

// Add adds a round.
func (r *Report) Add(scenario, name, target string, s Sample) {
	series := r.Find(scenario, name, target)
	if series == nil {
		series = &Series{Scenario: scenario, Case: name, Target: target}
		r.Series = append(r.Series, series)
	}
	series.Rounds = append(series.Rounds, s)
}

// Find returns a series, or nil.
func (r *Report) Find(scenario, name, target string) *Series {
	for _, s := range r.Series {
		if s.Scenario == scenario && s.Case == name && s.Target == target {
			return s
		}
	}
	return nil
}

// Key names a series.
type Key struct{ Scenario, Case, Target string }

// Ratio adds a check of a metric of a against that of b: the median of the
// ratios of the rounds, which were run in turn, so that what slows the machine
// for a while slows both.
func (r *Report) Ratio(what string, m Metric, a, b Key, budget float64, atLeast bool) {
	var ratios []float64
	sa, sb := r.Find(a.Scenario, a.Case, a.Target), r.Find(b.Scenario, b.Case, b.Target)
	if sa != nil && sb != nil {
		for i := range min(len(sa.Rounds), len(sb.Rounds)) {
			va, ok := sa.Rounds[i][m]
			if vb := sb.Rounds[i][m]; ok && vb > 0 {
				ratios = append(ratios, va/vb)
			}
		}
	}
	r.AddCheck(what, ratios, budget, atLeast)
}

// AddCheck adds a check of the median of some values.
func (r *Report) AddCheck(what string, values []float64, budget float64, atLeast bool) {
	r.Checks = append(r.Checks, Check{
		What: what, Value: median(values), Budget: budget, AtLeast: atLeast, Missing: len(values) == 0,
	})
}

// Value adds a check of the median of a metric itself, less an allowance that
// was measured too.
func (r *Report) Value(what string, m Metric, k Key, less, budget float64, unit string) {
	c := Check{What: what, Budget: budget, Unit: unit, Missing: true}
	if s := r.Find(k.Scenario, k.Case, k.Target); s != nil {
		if v, ok := s.Median(m); ok {
			c.Value, c.Missing = v-less, false
		}
	}
	r.Checks = append(r.Checks, c)
}

// Unmet returns the checks whose budget is not met.
func (r *Report) Unmet() []Check {
	var out []Check
	for _, c := range r.Checks {
		if !c.Met() {
			out = append(out, c)
		}
	}
	return out
}

// Save writes the report as JSON into dir and returns the file.
func (r *Report) Save(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, r.Time.Format("20060102-150405")+".json")
	return file, os.WriteFile(file, append(b, '\n'), 0o600)
}

// Load reads a report that Save wrote.
func Load(file string) (*Report, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(Report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}
