package report

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Begin and End are the lines between which a document has the table.
const (
	Begin = "<!-- faults: made by `go run ./internal/robustness/table` from docs/faults.json; do not edit -->"
	End   = "<!-- end of faults -->"
)

// ErrNoPlace is returned for a document that has no place for the table.
var ErrNoPlace = errors.New("report: the document must have these two lines, once and in this order:\n" + Begin + "\n" + End)

// Table returns the results as a table in Markdown, in a fixed order.
func Table(results []Result) string {
	sorted := slices.SortedFunc(slices.Values(results), func(a, b Result) int {
		return cmp.Or(cmp.Compare(a.Test, b.Test), cmp.Compare(a.Fault, b.Fault))
	})
	var b strings.Builder
	b.WriteString("| fault | times | events acknowledged | delivered | of them replayed | resumes | lost | repeated | slowest recovery | test |\n")
	b.WriteString("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n")
	var all Result
	for _, r := range sorted {
		row(&b, r.Fault, r, "`"+r.Test+"`")
		all.Times += r.Times
		all.Acknowledged += r.Acknowledged
		all.Delivered += r.Delivered
		all.Replayed += r.Replayed
		all.Resumes += r.Resumes
		all.Lost += r.Lost
		all.Repeated += r.Repeated
		all.SlowestRecoveryMS = max(all.SlowestRecoveryMS, r.SlowestRecoveryMS)
	}
	row(&b, "**together**", all, "")
	return b.String()
}

func row(b *strings.Builder, fault string, r Result, test string) {
	fmt.Fprintf(b, "| %s | %d | %s | %s | %s | %s | %d | %d | %s | %s |\n", fault, r.Times,
		thousands(r.Acknowledged), thousands(r.Delivered), thousands(r.Replayed), thousands(r.Resumes),
		r.Lost, r.Repeated, seconds(r.SlowestRecoveryMS), test)
}

// seconds is a time for people, who see no third digit.
func seconds(ms int64) string {
	if ms < 1000 {
		return fmt.Sprintf("%d ms", ms)
	}
	return fmt.Sprintf("%.1f s", float64(ms)/1000)
}

func thousands(n uint64) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// Insert returns a document with the table in its place.
func Insert(document, table string) (string, error) {
	before, rest, begins := strings.Cut(document, Begin+"\n")
	_, after, ends := strings.Cut(rest, End+"\n")
	if !begins || !ends || strings.Contains(rest, Begin) || strings.Contains(after, End) {
		return "", ErrNoPlace
	}
	return before + Begin + "\n" + table + End + "\n" + after, nil
}
