// Command table puts the results in docs/faults.json into the table of
// docs/promises.md. It is run at the top of the repository; `make faults` runs
// it.
package main

import (
	"fmt"
	"os"

	"github.com/reprise-chat/reprise/internal/robustness/report"
)

const (
	results  = "docs/faults.json"
	document = "docs/promises.md"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

func run() error {
	reached, err := report.Read(results)
	if err != nil {
		return err
	}
	if len(reached) == 0 {
		return fmt.Errorf("there are no results in %s: run make faults", results)
	}
	before, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	after, err := report.Insert(string(before), report.Table(reached))
	if err != nil {
		return fmt.Errorf("%s: %w", document, err)
	}
	return os.WriteFile(document, []byte(after), 0o644) //nolint:gosec // a document is for everybody
}
