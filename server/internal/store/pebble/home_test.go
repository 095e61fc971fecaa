package pebble

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// outside is something that is done to a data directory from outside.
type outside struct {
	name string
	do   func(t *testing.T, dir, away string)
	// later: only the look at everything notices it, and not each commit.
	later bool
	says  string
	// lives: the directory that was opened is at away afterwards, whole.
	lives bool
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// takeOut moves the last file of a pattern out of the directory.
func takeOut(pattern string) func(t *testing.T, dir, away string) {
	return func(t *testing.T, dir, away string) {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		mustDo(t, os.Rename(files[len(files)-1], away))
	}
}

var outsides = []outside{
	{"moved", func(t *testing.T, dir, away string) {
		mustDo(t, os.Rename(dir, away))
	}, false, "was moved or deleted", true},
	{"deleted", func(t *testing.T, dir, _ string) {
		mustDo(t, os.RemoveAll(dir))
	}, false, "was moved or deleted", false},
	{"deleted and made anew", func(t *testing.T, dir, _ string) {
		mustDo(t, os.RemoveAll(dir))
		mustDo(t, os.Mkdir(dir, 0o700))
	}, false, "was replaced by another one", false},
	{"replaced by a copy", func(t *testing.T, dir, away string) {
		mustDo(t, os.CopyFS(away+".copy", os.DirFS(dir)))
		mustDo(t, os.Rename(dir, away))
		mustDo(t, os.Rename(away+".copy", dir))
	}, false, "was replaced by another one", true},
	{"emptied", func(t *testing.T, dir, _ string) {
		entries, err := os.ReadDir(dir)
		mustDo(t, err)
		for _, e := range entries {
			mustDo(t, os.Remove(filepath.Join(dir, e.Name())))
		}
	}, false, "lost its log of writes", false},
	{"log taken out", takeOut("*.log"), false, "lost its log of writes", false},
	{"log replaced", func(t *testing.T, dir, away string) {
		name, _ := newestLog(vfs.Default, dir)
		takeOut(name)(t, dir, away)
		data, err := os.ReadFile(away)
		mustDo(t, err)
		mustDo(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}, false, "got another file as", false},
	{"table taken out", takeOut("*.sst"), true, "lost its file", false},
	{"manifest taken out", takeOut("MANIFEST-*"), true, "lost its file MANIFEST-", false},
	{"marker taken out", takeOut("marker.manifest.*"), true, "lost its file marker.manifest", false},
	{"lock deleted", func(t *testing.T, dir, _ string) {
		mustDo(t, os.Remove(filepath.Join(dir, lockName)))
	}, true, "lost its file LOCK", false},
}

// TestP1_Outside does to the data directory of an open store what operators do:
// the store notices, acknowledges nothing more, and writes nothing into whatever
// has the directory's name by then.
func TestP1_Outside(t *testing.T) {
	for _, c := range outsides {
		for _, idle := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, idle=%t", c.name, idle), func(t *testing.T) {
				t.Parallel()
				doOutside(t, c, idle)
			})
		}
	}
}

func doOutside(t *testing.T, c outside, idle bool) {
	parent, err := filepath.EvalSymlinks(t.TempDir())
	mustDo(t, err)
	dir, away := filepath.Join(parent, "data"), filepath.Join(parent, "away")
	fatal := make(chan error, 1)
	o := options(t)
	o.Fatal = func(err error) { fatal <- err }
	s := mustOpen(t, dir, o)
	l := logOf(t, s, "r")
	fill(t, l, 40)
	mustDo(t, s.db.Flush())
	fill(t, l, 50)
	before := snapshotIf(t, dir)

	c.do(t, dir, away)
	if !idle && !c.later {
		// No time for anybody to look: the commit itself notices.
		wantErr(t, appendOne(t, l, 50), store.ErrClosed)
	}
	began := time.Now()
	select {
	case err := <-fatal:
		if gone := (*goneError)(nil); !errors.As(err, &gone) || !strings.Contains(err.Error(), dir+" "+c.says) {
			t.Errorf("it says: %v", err)
		}
		t.Logf("noticed after %v", time.Since(began).Round(time.Millisecond))
	case <-time.After(5 * time.Second):
		t.Fatal("nobody notices")
	}
	wantErr(t, appendOne(t, l, 50), store.ErrClosed)
	wantErr(t, s.Writable(), store.ErrClosed)
	if head := l.State().Head; head != 50 {
		t.Errorf("head %d is shown; acknowledged 50", head)
	}
	found := snapshotIf(t, dir)
	_ = s.Close() // of a store that failed
	if after := snapshotIf(t, dir); !c.later && !reflect.DeepEqual(found, after) {
		t.Errorf("the directory of that name was changed: %v, and then %v", slices.Sorted(maps.Keys(found)), slices.Sorted(maps.Keys(after)))
	}
	for name := range found {
		if _, was := before[name]; !was {
			t.Errorf("%s was made in the directory of that name", name)
		}
	}
	if c.lives {
		s := mustOpen(t, away, options(t))
		defer mustClose(t, s)
		if head := logOf(t, s, "r").State().Head; head < 50 {
			t.Errorf("the directory that was moved has %d events; acknowledged 50", head)
		}
	}
}

func snapshotIf(t *testing.T, dir string) map[string]string {
	t.Helper()
	if _, err := os.Stat(dir); err != nil {
		return nil
	}
	return snapshot(t, dir)
}

// TestOutsideControl does what a store itself does with its files, for many
// looks: nothing is missed.
func TestOutsideControl(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := options(t)
	o.Fatal = func(err error) { t.Errorf("missed: %v", err) }
	s := mustOpen(t, dir, o)
	defer mustClose(t, s)
	l := logOf(t, s, "r")
	until := time.Now().Add(10 * lookEvery)
	for n := uint64(0); time.Now().Before(until); n++ {
		mustDo(t, appendOne(t, l, n))
		switch n % 8 {
		case 3:
			mustDo(t, s.db.Flush())
		case 5:
			mustDo(t, s.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false))
		case 7:
			mustDo(t, s.Backup(t.Context(), filepath.Join(t.TempDir(), "copy")))
		}
		mustDo(t, s.home.lookForFiles()) // beside the store's own looks
	}
}

// TestP1_OnlyTheLockIsLeft deletes everything but LOCK: that is no new
// directory. Without LOCK it is one.
func TestP1_OnlyTheLockIsLeft(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, options(t))
	fill(t, logOf(t, s, "r"), 3)
	mustClose(t, s)
	mustClose(t, mustOpen(t, dir, options(t))) // as often as one likes
	for _, name := range slices.Sorted(maps.Keys(snapshot(t, dir))) {
		if name != lockName {
			mustDo(t, os.Remove(filepath.Join(dir, name)))
		}
	}
	for range 2 {
		if _, err := Open(dir, options(t)); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "shows that there was a store") {
			t.Fatalf("Open: %v", err)
		}
		if r, err := Check(t.Context(), dir, CheckOptions{}); err != nil || r.Found != 1 {
			t.Errorf("the check: %v, %v", r.Problems, err)
		}
	}
	mustDo(t, os.Remove(filepath.Join(dir, lockName)))
	mustClose(t, mustOpen(t, dir, options(t)))
}

// TestLockDeleted opens a directory whose lock was deleted while a server has
// it: the directory itself is locked too.
func TestLockDeleted(t *testing.T) {
	dir := t.TempDir()
	startChild(t, dir)
	mustDo(t, os.Remove(filepath.Join(dir, lockName)))
	_, err := Open(dir, options(t))
	wantErr(t, err, store.ErrLocked)
	_, err = Check(t.Context(), dir, CheckOptions{})
	wantErr(t, err, store.ErrLocked)
}

// BenchmarkHome is what each batch pays for looking at the directory.
func BenchmarkHome(b *testing.B) {
	s := mustOpen(b, b.TempDir(), options(b))
	defer mustClose(b, s)
	for b.Loop() {
		must(s.home.check())
	}
}
