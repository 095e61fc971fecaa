// Package transcript runs the commands that a document shows, as a reader
// would paste them, and compares what they print with what the document says.
//
// In the document a transcript is what stands between two comments that a
// rendered page does not show:
//
//	<!-- transcript -->
//	...
//	<!-- /transcript -->
//
// A fence in it that is marked `sh` is a step: its lines are commands. The
// steps run in order in one bash, so a variable or a background job of one is
// there for the next. A fence marked `text` or `json` right after a step is
// what the step prints, standard error included. In it `…` stands for any text
// within a line, and a line with nothing but `…` for any number of lines. How
// much white space stands between words does not matter. A step without output
// of its own may print anything and must succeed.
package transcript

import (
	"bufio"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

const (
	begin = "<!-- transcript -->"
	end   = "<!-- /transcript -->"
	rest  = "…"
)

// Step is some commands and what they print.
type Step struct {
	// Line of the document on which the commands start, the first being 1.
	Line int
	// Commands are one or more lines of shell.
	Commands string
	// Output is what the document says the commands print. HasOutput tells
	// nothing at all from nothing said.
	Output    string
	HasOutput bool
}

// Parse returns the steps of all transcripts in a Markdown document. It is an
// error if there is none, or if a transcript or a fence does not end.
func Parse(document string) ([]Step, error) {
	var p parser
	in := bufio.NewScanner(strings.NewReader(document))
	for in.Scan() {
		p.line++
		if err := p.take(in.Text()); err != nil {
			return nil, fmt.Errorf("line %d: %w", p.line, err)
		}
	}
	switch {
	case in.Err() != nil:
		return nil, in.Err()
	case p.fenced || p.inside:
		return nil, errors.New("the last transcript or fence does not end")
	case len(p.steps) == 0:
		return nil, errors.New("there is no transcript: no sh fence between " + begin + " and " + end)
	}
	return p.steps, nil
}

type parser struct {
	steps []Step
	line  int

	inside   bool   // between the two comments
	fenced   bool   // in a fence
	language string // of that fence
	start    int    // its first line
	text     strings.Builder
	stepOpen bool // the last step has no output yet, and nothing but blank lines followed
}

func (p *parser) take(line string) error {
	fence, isFence := strings.CutPrefix(line, "```")
	switch {
	case p.fenced && isFence:
		p.fenced = false
		p.close()
	case p.fenced:
		p.text.WriteString(line + "\n")
	case isFence:
		p.fenced, p.language, p.start = true, strings.TrimSpace(fence), p.line+1
		p.text.Reset()
	case strings.TrimSpace(line) == begin:
		if p.inside {
			return errors.New("a transcript starts inside another")
		}
		p.inside = true
	case strings.TrimSpace(line) == end:
		if !p.inside {
			return errors.New("a transcript ends that has not started")
		}
		p.inside, p.stepOpen = false, false
	case strings.TrimSpace(line) != "":
		p.stepOpen = false
	}
	return nil
}

// close ends a fence.
func (p *parser) close() {
	if !p.inside {
		return
	}
	switch p.language {
	case "sh":
		p.steps = append(p.steps, Step{Line: p.start, Commands: p.text.String()})
		p.stepOpen = true
	case "text", "json":
		if p.stepOpen {
			last := &p.steps[len(p.steps)-1]
			last.Output, last.HasOutput = p.text.String(), true
		}
		p.stepOpen = false
	default:
		p.stepOpen = false
	}
}

// Match returns nil if got is what want says, and otherwise an error that
// shows both.
func Match(want, got string) error {
	var pattern strings.Builder
	pattern.WriteString(`\A`)
	for _, line := range lines(want) {
		if line == rest {
			pattern.WriteString(`(?:.*\n)*?`)
			continue
		}
		parts := strings.Split(line, rest)
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		pattern.WriteString(strings.Join(parts, `.*`) + `\n`)
	}
	pattern.WriteString(`\z`)
	printed := strings.Join(append(lines(got), ""), "\n")
	if !regexp.MustCompile(pattern.String()).MatchString(printed) {
		return fmt.Errorf("the document says\n%s\nand this was printed\n%s", indent(want), indent(got))
	}
	return nil
}

// lines splits text, with white space reduced to single blanks and empty lines
// left out.
func lines(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 0 {
			all = append(all, strings.Join(words, " "))
		}
	}
	return all
}

func indent(text string) string {
	return "\t" + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n\t")
}
