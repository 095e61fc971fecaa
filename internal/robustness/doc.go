// Package robustness runs the real server binary under faults and load, and
// has package history say whether the promises held.
//
//	                    ┌ SIGKILL, SIGTERM, SIGSTOP, failpoints, power cuts
//	                    ▼
//	SDK clients ──┬─ reprise serve ── data directory ── backup, check
//	stalled ones ─┘   ▲
//	     │            └ connections cut, slowed, half-open
//	     └── one trace ── history.Check, history.Linearizable
//
// A process is the server, which keeps its addresses and its data over
// restarts. A load is SDK clients, each in several rooms, that publish at a
// steady rate with retries and write everything down. A scenario starts both,
// injects its fault again and again, and has the load checked: everybody
// catches up, every room's log is read twice by a client that was never there,
// and the history must keep every rule. Long scenarios do that a window at a
// time, so that the trace stays small; at the end each whole log is read once
// more and must be what the windows saw.
//
// It has no code but tests. `make test-faults` runs it for a few minutes, `make
// faults` for long, `make soak` the mix of everything. With REPRISE_REPORT set
// to a file each scenario adds its figures to it, of which the table in
// docs/promises.md is made.
package robustness
