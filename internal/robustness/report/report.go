// Package report is what a run of package robustness reached: a JSON file of
// results, and the table in docs/promises.md that is made of it.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// Result is what one scenario did and found.
type Result struct {
	// Fault says what was done to the server or its clients, for people; it
	// names the result.
	Fault string `json:"fault"`
	// Test is the name of the scenario's test.
	Test string `json:"test"`
	// Times is how often it was done, Seconds how long the scenario took.
	Times   int     `json:"times"`
	Seconds float64 `json:"seconds"`

	// Acknowledged counts events that a client was told are durable; Delivered
	// what was handed to all handlers together, and of those Replayed what
	// came before its room had caught up. Resumes counts sessions attached
	// again.
	Acknowledged uint64 `json:"acknowledged"`
	Delivered    uint64 `json:"delivered"`
	Resumes      uint64 `json:"resumes"`
	Replayed     uint64 `json:"replayed"`

	// Lost and Repeated count violations of the rules that find events that
	// are missing, and that came twice. Violations counts all.
	Lost       uint64 `json:"lost"`
	Repeated   uint64 `json:"repeated"`
	Violations uint64 `json:"violations"`

	// SlowestRecoveryMS is the longest time, in milliseconds, from the end of
	// a fault (the server serves again, the network is whole) until something
	// more was acknowledged and every client held everything that had been.
	SlowestRecoveryMS int64 `json:"slowest_recovery_ms"`
}

// Read returns the results of a file; none if it does not exist.
func Read(path string) ([]Result, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var results []Result
	if err := json.Unmarshal(b, &results); err != nil {
		return nil, fmt.Errorf("report: %s: %w", path, err)
	}
	return results, nil
}

// Add puts a result into a file, in the place of the one of the same name if
// there is one. One process at a time.
func Add(path string, r Result) error {
	results, err := Read(path)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(results, func(old Result) bool { return old.Fault == r.Fault }); i >= 0 {
		results[i] = r
	} else {
		results = append(results, r)
	}
	b, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644) //nolint:gosec // a report is for everybody
}
