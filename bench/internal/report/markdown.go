package report

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The markers between which a document's figures are written.
const (
	beginMarker = "<!-- figures: written by make bench-full, do not edit -->"
	endMarker   = "<!-- end of figures -->"
)

// WriteDoc puts the report between the markers of a document, and its plots
// into a folder beside it.
func (r *Report) WriteDoc(file string) error {
	doc, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(doc, []byte(beginMarker))
	_, after, ok2 := bytes.Cut(rest, []byte(endMarker))
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for figures: between %q and %q", file, beginMarker, endMarker)
	}
	folder := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
	plots, err := r.writePlots(filepath.Join(filepath.Dir(file), folder))
	if err != nil {
		return err
	}
	var out bytes.Buffer
	out.Write(before)
	fmt.Fprintf(&out, "%s\n\n", beginMarker)
	r.markdown(&out, folder, plots)
	fmt.Fprintf(&out, "%s", endMarker)
	out.Write(after)
	return os.WriteFile(file, out.Bytes(), 0o644) //nolint:gosec // a document, for everybody
}

func (r *Report) markdown(w *bytes.Buffer, folder string, plots []plot) {
	fmt.Fprintf(w, "Commit `%s`, %s, on %s, %d cores, Linux %s, %s.\n", r.Commit, r.Time.Format("2 January 2006"), r.Machine, r.Cores, r.Kernel, r.Go)
	fmt.Fprintf(w, "Command, in `bench/`: `%s`, %.0f minutes; load average before: %s.\n\n", r.Command, r.Took/60, r.Load)
	fmt.Fprintf(w, "### Budgets\n\n| what | measured | budget | |\n| --- | ---: | ---: | --- |\n")
	for _, c := range r.Checks {
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", c.What, c.value(), c.bound(), c.Verdict())
	}
	fmt.Fprintln(w)
	for _, g := range r.groups() {
		fmt.Fprintf(w, "### %s\n\n", strings.ToUpper(g.scenario[:1])+g.scenario[1:])
		for _, p := range plots {
			if p.scenario == g.scenario {
				fmt.Fprintf(w, "![%s](%s/%s)\n\n", p.title, folder, p.file)
			}
		}
		fmt.Fprintf(w, "| case | server | %s |\n| --- | --- |%s\n", strings.Join(names(g.metrics), " | "), strings.Repeat(" ---: |", len(g.metrics)))
		for _, s := range g.series {
			fmt.Fprintf(w, "| %s | %s | %s |\n", s.Case, s.Target, strings.Join(s.cells(g.metrics), " | "))
		}
		fmt.Fprintln(w)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "- %s\n", n)
	}
}
