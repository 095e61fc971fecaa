package pebble

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/reprise-chat/reprise/server/internal/store"
	"github.com/reprise-chat/reprise/server/internal/store/crashfs"
)

// TestBackupLive copies a store again and again while all of its rooms are
// written to. Each copy checks clean, opens, and has everything that was
// acknowledged before it was asked for.
func TestBackupLive(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := mustOpen(t, dir, options(t))
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	var heads [4]struct {
		sync.Mutex
		acknowledged uint64
	}
	for i := range heads {
		l := logOf(t, s, fmt.Sprint("room", i))
		writers.Go(func() {
			for head := uint64(0); ctx.Err() == nil; head++ {
				if err := appendOne(t, l, head); err != nil {
					t.Error(err)
					return
				}
				heads[i].Lock()
				heads[i].acknowledged = head + 1
				heads[i].Unlock()
			}
		})
	}
	for n := range 5 {
		var before [4]uint64
		for i := range heads {
			heads[i].Lock()
			before[i] = heads[i].acknowledged
			heads[i].Unlock()
		}
		dest := filepath.Join(t.TempDir(), "made", fmt.Sprint("copy", n))
		if err := s.Backup(t.Context(), dest); err != nil {
			t.Fatal(err)
		}
		r, err := Check(t.Context(), dest, CheckOptions{})
		if err != nil || r.Damaged() {
			t.Fatalf("copy %d: %+v, %v", n, r, err)
		}
		backup := mustOpen(t, dest, options(t))
		if backup.Incarnation() == s.Incarnation() {
			t.Error("the copy has the incarnation of the original")
		}
		for i, want := range before {
			l := logOf(t, backup, fmt.Sprint("room", i))
			if head := l.State().Head; head < want {
				t.Errorf("copy %d: room%d has head %d, and %d was acknowledged before", n, i, head, want)
			}
			if err := appendOne(t, l, l.State().Head); err != nil {
				t.Error(err)
			}
		}
		mustClose(t, backup)
	}
	cancel()
	writers.Wait()
	mustClose(t, s)
	if left := backupLinks(t, dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if r, err := Check(t.Context(), dir, CheckOptions{}); err != nil || r.Damaged() {
		t.Errorf("the original: %+v, %v", r, err)
	}
}

func backupLinks(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), linksPrefix) {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestBackupOfStopped copies a directory that nobody has open, which is not
// changed by it.
func TestBackupOfStopped(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := mustOpen(t, dir, options(t))
	populate(t, s, 0)
	want, err := readContents(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	dest := filepath.Join(t.TempDir(), "copy")
	if err := Backup(t.Context(), dir, dest); !errors.Is(err, store.ErrLocked) {
		t.Errorf("beside a server: %v", err)
	}
	mustClose(t, s)
	before := snapshot(t, dir)
	if err := Backup(t.Context(), dir, dest); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(before, snapshot(t, dir)) {
		t.Error("the original was changed")
	}
	if err := Backup(t.Context(), dir, dest); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto another backup: %v", err)
	}
	backup := mustOpen(t, dest, options(t))
	got, err := readContents(t.Context(), backup)
	if err != nil || !maps.Equal(got.events, want.events) {
		t.Errorf("the copy reads otherwise: %v", err)
	}
	mustClose(t, backup)
}

// TestBackupOfDamaged is refused, and leaves nothing that could be taken for a
// backup.
func TestBackupOfDamaged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for round := range 2 { // the second start writes the log of the first into a table
		s := mustOpen(t, dir, options(t))
		populate(t, s, round)
		mustClose(t, s)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal("no table: ", err)
	}
	data, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(tables[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	parent := t.TempDir()
	err = Backup(t.Context(), dir, filepath.Join(parent, "copy"))
	if err == nil || !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), filepath.Base(tables[0])) {
		t.Errorf("a damaged directory: %v", err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestBackupCleansUp: what a backup left whose process ended is gone when the
// store is open. What no backup made is left alone, and so is what links lead to.
func TestBackupCleansUp(t *testing.T) {
	dir, elsewhere := filepath.Join(t.TempDir(), "data"), t.TempDir()
	kept := filepath.Join(elsewhere, "file")
	stale := filepath.Join(dir, linksPrefix+mintIncarnation()+"-12")
	mine := filepath.Join(dir, linksPrefix+"of-tuesday")
	link := linksPrefix + mintIncarnation() + "-1"
	for _, err := range []error{
		os.WriteFile(kept, []byte("x"), 0o600),
		os.MkdirAll(stale, 0o700), os.MkdirAll(mine, 0o700),
		os.Symlink(elsewhere, filepath.Join(dir, link)),
		os.Symlink(elsewhere, filepath.Join(stale, "link")),
		os.WriteFile(filepath.Join(stale, "000001.sst"), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s := mustOpen(t, dir, options(t))
	defer mustClose(t, s)
	want := []string{link, filepath.Base(mine)}
	slices.Sort(want)
	if left := backupLinks(t, dir); !slices.Equal(left, want) {
		t.Errorf("there are %v, not %v", left, want)
	}
	populate(t, s, 0)
	if err := s.Backup(t.Context(), filepath.Join(t.TempDir(), "copy")); err != nil {
		t.Fatal(err)
	}
	if left := backupLinks(t, dir); !slices.Equal(left, want) {
		t.Errorf("after a backup there are %v, not %v", left, want)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
}

// TestBackupGivenUp ends backups at any moment while the store is written to:
// none leaves anything, neither when it returns nor later, and one that is
// waited for works.
func TestBackupGivenUp(t *testing.T) {
	dir, parent := filepath.Join(t.TempDir(), "data"), t.TempDir()
	s := mustOpen(t, dir, options(t))
	writing, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for i := range 4 {
		l := logOf(t, s, fmt.Sprint("room", i))
		writers.Go(func() {
			for head := uint64(0); writing.Err() == nil; head++ {
				if err := appendOne(t, l, head); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	given := 0
	for i := range 150 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.N(30_000))*time.Microsecond)
		err := s.Backup(ctx, filepath.Join(parent, fmt.Sprint("copy", i)))
		if cancel(); err != nil {
			wantErr(t, err, context.DeadlineExceeded)
			given++
		}
		if left := backupLinks(t, dir); len(left) > 0 {
			t.Fatalf("left behind by backup %d, %v: %v", i, err, left)
		}
	}
	if given < 20 {
		t.Errorf("only %d were given up", given)
	}
	dest := filepath.Join(parent, "last")
	if err := s.Backup(t.Context(), dest); err != nil {
		t.Fatal(err)
	}
	stop()
	writers.Wait()
	mustClose(t, s)
	if left := backupLinks(t, dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if partial, _ := filepath.Glob(filepath.Join(parent, "*.partial")); len(partial) > 0 {
		t.Errorf("left behind: %v", partial)
	}
	if r, err := Check(t.Context(), dest, CheckOptions{}); err != nil || r.Damaged() {
		t.Errorf("the copy: %+v, %v", r, err)
	}
}

// TestBackupFullDisk fails the n-th write of the copy: nothing is left, and the
// store goes on.
func TestBackupFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	var writes, failAt atomic.Int64
	o := options(t)
	o.FS = errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if strings.HasPrefix(op.Path, "copy.partial") && op.Kind == errorfs.OpFileWrite && writes.Add(1) == failAt.Load() {
			return syscall.ENOSPC
		}
		return nil
	}))
	s := mustOpen(t, "data", o)
	defer mustClose(t, s)
	populate(t, s, 0)
	for n := int64(1); ; n++ {
		writes.Store(0)
		failAt.Store(n)
		err := s.Backup(t.Context(), "copy")
		if err == nil {
			if n < 4 {
				t.Errorf("a backup of %d writes", n-1)
			}
			return
		}
		wantErr(t, err, syscall.ENOSPC)
		for _, name := range []string{"copy", "copy.partial"} {
			if _, err := mem.Stat(name); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("write %d failed, and %s is left: %v", n, name, err)
			}
		}
		fill(t, logOf(t, s, "room1"), logOf(t, s, "room1").State().Head+1)
	}
}

// TestBackupHalf ends the process, and loses what was not synced or not, at
// each write of the copy: what it leaves is refused, and is never taken for a
// store that has less.
func TestBackupHalf(t *testing.T) {
	mem := crashfs.New()
	var left []*crashfs.FS
	o := options(t)
	o.FS = errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !strings.HasPrefix(op.Path, "copy.partial") || op.Kind != errorfs.OpFileWrite {
			return nil
		}
		// What is written once all files are there is a note about them.
		if _, err := mem.Stat(mem.PathJoin("copy.partial", unfinishedName)); err == nil {
			left = append(left, mem.CrashClone(vfs.CrashCloneCfg{}), mem.CrashClone(vfs.CrashCloneCfg{
				UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2)),
			}))
		}
		return nil
	}))
	s := mustOpen(t, "data", o)
	defer mustClose(t, s)
	populate(t, s, 0)
	if err := s.Backup(t.Context(), "copy"); err != nil {
		t.Fatal(err)
	}
	if len(left) < 6 {
		t.Errorf("only %d crashes", len(left))
	}
	for i, fsys := range left {
		o.FS = fsys
		if half, err := Open("copy.partial", o); !errors.Is(err, errUnfinished) {
			t.Errorf("half a copy, crash %d, opens: %v", i, err)
			if err == nil {
				mustClose(t, half)
			}
		}
		if _, err := Check(t.Context(), "copy.partial", CheckOptions{FS: fsys}); err == nil {
			t.Errorf("half a copy, crash %d, passes the check", i)
		}
	}
}

// TestBackupEnded ends when its context does, and leaves nothing.
func TestBackupEnded(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "data"), options(t))
	defer mustClose(t, s)
	populate(t, s, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	parent := t.TempDir()
	wantErr(t, s.Backup(ctx, filepath.Join(parent, "copy")), context.Canceled)
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
