package report

import (
	"bytes"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// plot is a bar chart of one metric of one scenario: a block of bars for each
// case, a bar for each server, a thin line from the least to the most of its
// rounds.
type plot struct {
	scenario, title, file string
	metric                Metric
}

// plotted are the metrics that are worth a picture, by scenario; the first one
// that its series have.
var plotted = []Metric{Probe, PerConn, Seconds, Rate, P99}

// Sizes of a chart in pixels.
const (
	chartWidth  = 860
	labelWidth  = 330
	valueWidth  = 90
	barHeight   = 16
	blockGap    = 14
	titleHeight = 34
	barSpace    = chartWidth - labelWidth - valueWidth
)

// colours are told apart by people who do not see all colours too.
var colours = []string{"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999"}

// writePlots draws a chart for each scenario, and its CPU beside it where that
// was measured.
func (r *Report) writePlots(dir string) ([]plot, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // documents, for everybody
		return nil, err
	}
	var out []plot
	for _, g := range r.groups() {
		var metrics []Metric
		if i := slices.IndexFunc(plotted, func(m Metric) bool { return slices.Contains(g.metrics, m) }); i >= 0 {
			metrics = append(metrics, plotted[i])
		}
		if slices.Contains(g.metrics, CPU) && metrics[0] == Rate {
			metrics = append(metrics, CPU)
		}
		for i, m := range metrics {
			name := strings.NewReplacer(" ", "-", ",", "").Replace(g.scenario)
			p := plot{g.scenario, g.scenario + ": " + string(m), fmt.Sprintf("%s-%d.svg", name, i+1), m}
			if err := os.WriteFile(filepath.Join(dir, p.file), g.draw(p), 0o644); err != nil { //nolint:gosec // the same
				return nil, err
			}
			out = append(out, p)
		}
	}
	return out, nil
}

// draw returns the chart as SVG.
func (g *group) draw(p plot) []byte {
	var cases []string
	var most float64
	for _, s := range g.series {
		if !slices.Contains(cases, s.Case) {
			cases = append(cases, s.Case)
		}
		for _, round := range s.Rounds {
			most = max(most, round[p.metric])
		}
	}
	var b bytes.Buffer
	y := titleHeight
	for _, name := range cases {
		fmt.Fprintf(&b, `<text x="0" y="%d" font-weight="bold">%s</text>`+"\n", y+11, html.EscapeString(name))
		y += barHeight
		for _, s := range g.series {
			if _, ok := s.Median(p.metric); s.Case == name && ok {
				g.bar(&b, s, p.metric, y, most)
				y += barHeight + 2
			}
		}
		y += blockGap
	}
	head := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n"+
		`<rect width="100%%" height="100%%" fill="white"/>`+"\n"+`<text x="0" y="16" font-size="15">%s</text>`+"\n",
		chartWidth, y, html.EscapeString(p.title))
	return append([]byte(head), append(b.Bytes(), "</svg>\n"...)...)
}

func (g *group) bar(b *bytes.Buffer, s *Series, m Metric, y int, most float64) {
	value, _ := s.Median(m)
	least, greatest := value, value
	for _, round := range s.Rounds {
		if v, ok := round[m]; ok {
			least, greatest = min(least, v), max(greatest, v)
		}
	}
	at := func(v float64) float64 { return labelWidth + max(0, v)/max(most, 1e-9)*barSpace }
	var targets []string
	for _, other := range g.series {
		if !slices.Contains(targets, other.Target) {
			targets = append(targets, other.Target)
		}
	}
	colour := colours[slices.Index(targets, s.Target)%len(colours)]
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, labelWidth-8, y+12, html.EscapeString(s.Target))
	fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, labelWidth, y, at(value)-labelWidth, barHeight, colour)
	fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="black"/>`, at(least), at(greatest), y+barHeight/2, y+barHeight/2)
	fmt.Fprintf(b, `<text x="%.1f" y="%d">%s</text>`+"\n", at(greatest)+6, y+12, number(value))
}
