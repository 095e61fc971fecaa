package report

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// order is the order of metrics in tables; those that a series lacks are left
// out.
var order = []Metric{
	Rate, Seconds, P50, P99, P999, MaxMedian, Attempts, Probe, ProbeBase, Crowd, CPU, Allocs, Attach, Start, PerConn, RSS,
}

// number writes a figure with three digits that matter.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a >= 1e6:
		return strconv.FormatFloat(v/1e6, 'f', 2, 64) + " M"
	case a >= 10_000:
		return strconv.FormatFloat(v/1e3, 'f', 1, 64) + " k"
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// Line writes a sample in one line.
func Line(s Sample) string {
	var parts []string
	for _, m := range order {
		if v, ok := s[m]; ok {
			parts = append(parts, number(v)+" "+string(m))
		}
	}
	return strings.Join(parts, ", ")
}

// Text writes the report for a terminal: budgets first, then medians.
func (r *Report) Text(w io.Writer) error {
	fmt.Fprintf(w, "\n%s on %s, %d cores, Linux %s, %s\n%s\nload average before: %s\n\n",
		r.Commit, r.Machine, r.Cores, r.Kernel, r.Go, r.Command, r.Load)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range r.Checks {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", c.What, c.value(), c.bound(), c.Verdict())
	}
	fmt.Fprintln(t)
	for _, g := range r.groups() {
		fmt.Fprintf(t, "%s\t%s\n", g.scenario, strings.Join(names(g.metrics), "\t"))
		for _, s := range g.series {
			fmt.Fprintf(t, "  %s, %s\t%s\n", s.Case, s.Target, strings.Join(s.cells(g.metrics), "\t"))
		}
		fmt.Fprintln(t)
	}
	for _, n := range r.Notes {
		fmt.Fprintln(t, n)
	}
	return t.Flush()
}

func (c Check) value() string {
	if c.Missing {
		return "-"
	}
	return strings.TrimSpace(number(c.Value) + " " + c.Unit)
}

// group is the series of one scenario and the metrics that they have.
type group struct {
	scenario string
	series   []*Series
	metrics  []Metric
}

func (r *Report) groups() []*group {
	var out []*group
	for _, s := range r.Series {
		i := slices.IndexFunc(out, func(g *group) bool { return g.scenario == s.Scenario })
		if i < 0 {
			i = len(out)
			out = append(out, &group{scenario: s.Scenario})
		}
		out[i].series = append(out[i].series, s)
	}
	for _, g := range out {
		has := make(map[Metric]bool)
		for _, s := range g.series {
			for _, round := range s.Rounds {
				for m := range maps.Keys(round) {
					has[m] = true
				}
			}
		}
		for _, m := range order {
			if has[m] {
				g.metrics = append(g.metrics, m)
			}
		}
	}
	return out
}

func names(metrics []Metric) []string {
	out := make([]string, len(metrics))
	for i, m := range metrics {
		out[i] = string(m)
	}
	return out
}

func (s *Series) cells(metrics []Metric) []string {
	out := make([]string, len(metrics))
	for i, m := range metrics {
		out[i] = "-"
		if v, ok := s.Median(m); ok {
			out[i] = number(v)
		}
	}
	return out
}
