package robustness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/reprise-chat/reprise/internal/history"
	"github.com/reprise-chat/reprise/internal/history/witness"
	"github.com/reprise-chat/reprise/internal/robustness/report"
)

// ledger is what the windows checked so far have found in the logs.
type ledger struct {
	last   map[string]history.Record // by room: the newest event
	digest map[string]hash.Hash      // by room: of every event
}

func newLedger() ledger {
	return ledger{last: make(map[string]history.Record), digest: make(map[string]hash.Hash)}
}

// take adds what a window found after last.
func (g *ledger) take(room string, log []history.Record) {
	d := g.digest[room]
	if d == nil {
		d = sha256.New()
		g.digest[room] = d
	}
	for _, r := range log {
		fmt.Fprintln(d, r)
		g.last[room] = r
	}
}

// check settles, reads what was added to every log twice, and requires that
// the history since the check before keeps every rule. It leaves everybody
// quiet: talk goes on.
func (l *load) check() {
	l.t.Helper()
	l.settle()
	logs := make(map[string][]history.Record, len(l.rooms))
	for _, room := range l.rooms {
		logs[room] = l.added(room)
	}
	records := l.trace.Take()
	for _, room := range l.rooms {
		records = append(records, l.final(room, logs[room])...)
		l.ledger.take(room, logs[room])
	}
	found := append(history.Check(records), history.Linearizable(records, time.Minute)...)
	if len(found) > 0 {
		l.violations = append(l.violations, found...)
		for _, v := range found {
			l.t.Errorf("%v", v)
		}
		l.keep(records)
	}
	for _, m := range l.clients {
		m.BeginWindow()
	}
}

// added returns what was added to a room's log since the last check, read
// twice. Retention may take its beginning away in between.
func (l *load) added(room string) []history.Record {
	l.t.Helper()
	after := l.ledger.last[room].Off
	first, second := l.read(room, after), l.read(room, after)
	same := first
	if l.cfg.trimmed && len(second) > 0 { // it keeps the newest ones
		same = first[max(0, len(first)-len(second)):]
	}
	if !slices.Equal(same, second) {
		l.t.Errorf("the log of %s is read as %d events after %d, and then as %d others", room, len(first), after, len(second))
	}
	return first
}

// final is the log of a window as the checker wants it: it begins with the
// event before, so that nothing can be missing between, under no id: that one
// is accounted for.
func (l *load) final(room string, log []history.Record) []history.Record {
	before := l.ledger.last[room]
	if before.K == "" || l.cfg.trimmed {
		return log
	}
	before.ID = ""
	return append([]history.Record{before}, log...)
}

func (l *load) read(room string, after uint64) []history.Record {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	log, trimmed, err := witness.ReadLog(ctx, l.auditor, room, after)
	if err != nil {
		l.t.Fatal(err)
	}
	if trimmed && !l.cfg.trimmed {
		l.t.Errorf("the log of %s has a gap, and nobody trims it", room)
	}
	return log
}

// whole requires that every room's whole log, read once more by a client that
// was never there, is what the checks have seen of it.
func (l *load) whole() {
	l.t.Helper()
	if l.cfg.trimmed {
		return
	}
	for _, room := range l.rooms {
		all := newLedger()
		log := l.read(room, 0)
		all.take(room, log)
		if !bytes.Equal(all.digest[room].Sum(nil), l.ledger.digest[room].Sum(nil)) {
			l.t.Errorf("the log of %s is not what it was: it has %d events up to %d now, and went up to %d", room, len(log), all.last[room].Off, l.ledger.last[room].Off)
		}
	}
}

// finish checks the last window and the whole logs, stops the clients, and
// adds the scenario to the report.
func (l *load) finish(fault string, times int) report.Result {
	l.t.Helper()
	l.check()
	l.whole()
	r := l.result(fault, times)
	l.stop()
	l.t.Logf("%s: %d times, %d events acknowledged, %d delivered (%d replayed), %d resumes, slowest recovery %d ms",
		r.Fault, r.Times, r.Acknowledged, r.Delivered, r.Replayed, r.Resumes, r.SlowestRecoveryMS)
	addToReport(l.t, r)
	return r
}

// result is the figures so far.
func (l *load) result(fault string, times int) report.Result {
	r := report.Result{
		Fault: fault, Test: l.t.Name(), Times: times, Seconds: float64(time.Since(l.started).Milliseconds()) / 1000,
		Acknowledged: l.acknowledged.Load(), Violations: uint64(len(l.violations)),
		SlowestRecoveryMS: l.recovery.Milliseconds(),
	}
	for _, m := range l.clients {
		c := m.Counts()
		r.Delivered += c.Events.Load()
		r.Replayed += c.Replayed.Load()
		r.Resumes += c.Resumes.Load()
	}
	for _, v := range l.violations {
		switch v.Rule {
		case "lost", "moved", "unread", "hole", "skip":
			r.Lost++
		case "repeat", "duplicate":
			r.Repeated++
		}
	}
	return r
}

// reporting is held while the report is written: some scenarios run beside
// each other.
var reporting sync.Mutex

// addToReport adds a result to the file that REPRISE_REPORT names, if it does.
func addToReport(t testing.TB, r report.Result) {
	t.Helper()
	reporting.Lock()
	defer reporting.Unlock()
	path := os.Getenv("REPRISE_REPORT")
	if path == "" {
		return
	}
	if err := report.Add(path, r); err != nil {
		t.Error(err)
	}
}

// fail ends the test and keeps the trace.
func (l *load) fail(format string, args ...any) {
	l.t.Helper()
	l.keep(l.trace.Records())
	l.t.Fatalf(format, args...)
}

// keep writes a trace to a file and says where.
func (l *load) keep(records []history.Record) {
	l.t.Helper()
	f, err := os.CreateTemp("", "reprise-trace-*.jsonl")
	if err != nil {
		l.t.Error(err)
		return
	}
	defer f.Close()
	for _, r := range records {
		fmt.Fprintln(f, r)
	}
	l.t.Logf("trace: %s", f.Name())
}
