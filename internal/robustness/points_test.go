package robustness

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// killPoints are the places in the server at which it is killed: those of
// package fault.
var killPoints = []struct {
	name, when string
	most       int      // the latest pass to be killed at
	args       []string // of serve
	trimmed    bool
	// push makes the server come by, as publishing does not: it is called
	// again and again while the server runs.
	push func(*points)
}{
	{name: "assigned", when: "between an event's offset and its commit", most: 60},
	{name: "committed", when: "between an event's commit and its being shown", most: 60},
	{name: "shown", when: "between an event's being shown and its receipt", most: 60},
	{name: "attached", when: "between an attach and its Welcome", most: 20, push: (*points).cut},
	{
		name: "trimming", when: "in the middle of retention", most: 12, trimmed: true,
		args: []string{"--keep-events", "40", "--trim-every", "100ms"},
	},
	{name: "backing-up", when: "in the middle of a backup", most: 8, push: (*points).backUp},
}

// points is one scenario of TestP1_KillPoints.
type points struct {
	*process
	l       *load
	backups int // begun
}

// TestP1_KillPoints has the server die at each of the places where dying is
// hardest, at random passes, under load, again and again.
func TestP1_KillPoints(t *testing.T) {
	needFaults(t)
	t.Parallel()
	deaths := times(t, "REPRISE_POINTS", 2)
	for _, point := range killPoints {
		t.Run(point.name, func(t *testing.T) {
			p := newProcess(t, "faults")
			p.args = point.args
			p.start()
			s := &points{process: p, l: newLoad(t, p, loadConfig{trimmed: point.trimmed})}
			for range deaths {
				s.l.talk()
				p.kill()
				s.die(point.name, 1+rand.IntN(point.most), point.push)
				s.halfCopy()
				p.start()
				s.l.recovered(time.Now())
			}
			if s.backups > 0 {
				s.restore()
			}
			s.l.finish("server killed "+point.when, deaths)
		})
	}
}

// die starts the server so that it is killed when it comes by a point for the
// n-th time, and requires that it was, and there.
func (s *points) die(point string, n int, push func(*points)) {
	s.t.Helper()
	s.begin(fmt.Sprintf("REPRISE_KILL=%s:%d", point, n))
	var pushing sync.WaitGroup
	exited := s.exited
	pushing.Go(func() {
		for push != nil {
			select {
			case <-exited:
				return
			case <-time.After(50 * time.Millisecond): // how hard to push
			}
			push(s)
		}
	})
	status, ended := s.wait(startTimeout)
	if !ended {
		s.kill() // so that the pushing ends
	}
	pushing.Wait()
	said := fmt.Sprintf("fault: killed at %s, pass %d\n", point, n)
	if !ended || !status.Signaled() || status.Signal() != syscall.SIGKILL || !strings.Contains(s.output.life(), said) {
		s.t.Fatalf("the server was to be killed at pass %d of %s; it ended: %v, with status %v:\n%s", n, point, ended, status, s.output.life())
	}
}

// cut has everybody attach again.
func (s *points) cut() {
	for i := range s.l.clients {
		s.l.cut(i)
	}
}

func (s *points) backup(n int) string {
	return filepath.Join(filepath.Dir(s.dir), fmt.Sprint("backup-", n))
}

// backUp asks the server for a backup; it does not last if the server dies.
func (s *points) backUp() {
	s.backups++
	if out, err := s.run("backup", "--dir", s.dir, s.backup(s.backups)); err == nil && !strings.Contains(out, "copied and checked") {
		s.t.Errorf("backup says %q", out)
	}
}

// halfCopy looks at what the backup left that the server died in.
func (s *points) halfCopy() {
	s.t.Helper()
	if s.backups == 0 {
		return
	}
	dest := s.backup(s.backups)
	if _, err := os.Stat(dest); err == nil {
		s.t.Errorf("the server died before the backup was whole, and it has its name: %s", dest)
	}
	partial := dest + ".partial"
	if out, err := s.run("check", partial); err == nil {
		s.t.Errorf("half a copy passes for a data directory:\n%s\n%s", list(partial), out)
	}
	out, err := s.runFor(3*time.Second, "serve", "--addr", "127.0.0.1:0", "--http", "127.0.0.1:0", "--dir", partial)
	if err == nil || !strings.Contains(out, "backup") {
		s.t.Errorf("half a copy is served: %v\n%s\n%s", err, list(partial), out)
	}
}

func list(dir string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// restore goes on with a backup in the place of the data: whoever holds
// everything that the backup has resumes as if nothing had been.
func (s *points) restore() {
	s.t.Helper()
	s.l.check()
	s.backups++
	dest := s.backup(s.backups)
	if out, err := s.run("backup", "--dir", s.dir, dest); err != nil {
		s.t.Fatalf("a backup after interrupted ones: %v\n%s", err, out)
	}
	s.kill()
	if out, err := s.run("check", s.dir); err != nil {
		s.t.Errorf("the data directory after interrupted backups: %v\n%s", err, out)
	}
	s.dir = dest
	s.start()
	s.l.talk()
	s.l.waitAcknowledged(50)
	s.l.recovered(time.Now())
	for _, m := range s.l.clients {
		if n := m.Counts().Rewinds.Load(); n > 0 {
			s.t.Errorf("%s was rewound %d times by a backup that had everything", m.Name(), n)
		}
	}
}
