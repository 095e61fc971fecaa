package command

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/reprise-chat/reprise/server"
)

func newCheck(std Streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Check a data directory for damage",
		Long: `Read everything in the data directory of a stopped server and report what is
not as it was written: damaged and missing files, records that do not decode,
and records that do not agree with each other, with the room, the offset and the
file where they are known. Nothing is changed, and to be allowed to read is
enough. Exits with 0 if all is well, and 1 if not.

What it cannot tell: damage in the last writes before a crash looks like a write
that the crash cut off. That is printed as a note.`,
		Example: `  reprise check reprise-data
  reprise check --json /var/lib/reprise`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			bar := newProgress(std.Err)
			report, err := server.Check(cmd.Context(), args[0], bar.show)
			bar.clear()
			if err != nil {
				return explainLocked(err, args[0], "check it after stopping the server, or check a backup of it")
			}
			return printReport(std.Out, args[0], report, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// printReport prints what a check found. The error says that it is damage.
func printReport(out io.Writer, dir string, r server.CheckReport, asJSON bool) error {
	var err error
	if asJSON {
		err = writeJSON(out, struct {
			Dir     string `json:"dir"`
			Damaged bool   `json:"damaged"`
			server.CheckReport
		}{dir, r.Damaged(), r})
	} else {
		_, err = io.WriteString(out, reportText(dir, r))
	}
	if err != nil || !r.Damaged() {
		return err
	}
	return fmt.Errorf("%s is damaged: %d found. Keep a copy of it as it is, for opening it can lose more, and restore a backup", dir, r.Found)
}

func reportText(dir string, r server.CheckReport) string {
	var text strings.Builder
	for _, p := range r.Problems {
		fmt.Fprintf(&text, "%s\n", p)
	}
	if more := r.Found - uint64(len(r.Problems)); more > 0 {
		fmt.Fprintf(&text, "and %d more\n", more)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&text, "note: %s\n", note)
	}
	fmt.Fprintf(&text, "%s: read %s\n", dir, counts(r))
	if !r.Damaged() {
		fmt.Fprintf(&text, "All is as it was written.\n")
	}
	return text.String()
}

func counts(r server.CheckReport) string {
	return fmt.Sprintf("%d rooms, %d events (%d bytes), %d members, %d sessions with %d positions, %d tables",
		r.Rooms, r.Events, r.Bytes, r.Members, r.Sessions, r.Positions, r.Tables)
}

// progress is a line on a terminal that says how far a check is.
type progress struct {
	out   io.Writer // nil if it is no terminal
	shown time.Time
}

// showEvery is how often the line changes.
const showEvery = 200 * time.Millisecond

func newProgress(out io.Writer) *progress {
	if !isTerminal(out) {
		out = nil
	}
	return &progress{out: out, shown: time.Now()}
}

const clearLine = "\r\x1b[K"

func (p *progress) show(r server.CheckReport) {
	if p.out == nil || time.Since(p.shown) < showEvery {
		return
	}
	p.shown = time.Now()
	fmt.Fprintf(p.out, "%schecked %d tables, %d rooms, %d events, %d sessions", clearLine, r.Tables, r.Rooms, r.Events, r.Sessions)
}

func (p *progress) clear() {
	if p.out != nil {
		fmt.Fprint(p.out, clearLine)
	}
}
