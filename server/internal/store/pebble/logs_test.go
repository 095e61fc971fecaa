package pebble

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/reprise-chat/reprise/server/internal/store"
	"github.com/reprise-chat/reprise/server/internal/store/crashfs"
)

// place puts files into a directory of a file system of its own.
func place(tb testing.TB, files map[string][]byte) *vfs.MemFS {
	tb.Helper()
	mem := vfs.NewMem()
	must(mem.MkdirAll("data", 0o700))
	for name, data := range files {
		rewriteFile(tb, mem, mem.PathJoin("data", name), data)
	}
	return mem
}

// wantRefused wants a directory refused because of one file, by Open and by the
// check alike.
func wantRefused(t *testing.T, mem vfs.FS, file, why string) {
	t.Helper()
	o := options(t)
	o.FS = mem
	s, err := Open("data", o)
	if err == nil {
		mustClose(t, s)
		t.Fatalf("it opens without %s", file)
	}
	damaged := (*damagedFileError)(nil)
	if !errors.As(err, &damaged) || damaged.name != file || !strings.Contains(damaged.detail, why) || !errors.Is(err, store.ErrCorrupt) {
		t.Fatalf("Open: %v; want %s: %s", err, file, why)
	}
	r := mustCheck(t, mem, "data")
	if !slices.ContainsFunc(r.Problems, func(p Problem) bool { return p.File == file && strings.Contains(p.Detail, why) }) {
		t.Fatalf("the check reports %v; want %s: %s", r.Problems, file, why)
	}
}

// TestP1_LostLog takes the newest log of writes away from a directory after a
// kill, empties it, cuts it, and puts an older one in its place: each time
// acknowledged events are gone, so the directory is refused, until the operator
// says to go on without them.
func TestP1_LostLog(t *testing.T) {
	t.Parallel()
	mem := crashfs.New()
	o := options(t)
	o.FS = mem
	s := mustOpen(t, "data", o)
	l := logOf(t, s, "r")
	fill(t, l, 50)
	must(s.db.Flush())
	older, _ := newestLog(mem, "data")
	olderData := readFile(t, mem, mem.PathJoin("data", older)) // with what its start wrote
	fill(t, l, 70)
	earlier := readFile(t, mem, mem.PathJoin("data", older))
	fill(t, l, 200)
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	mustClose(t, s)

	files := readFiles(t, crashed, "data")
	name, _ := newestLog(crashed, "data")
	if name != older {
		t.Fatalf("the log is %s and was %s", name, older)
	}
	log := files[name]
	for what, c := range map[string]struct {
		data []byte
		why  string
	}{
		"removed":  {nil, "is missing"},
		"emptied":  {[]byte{}, "cut short, or replaced"},
		"cut":      {log[:len(log)/3], "cut short, or replaced"},
		"at start": {olderData, "cut short, or replaced"},
		"older":    {earlier, "cut short, or replaced"},
		"of zeros": {make([]byte, len(log)), "cut short, or replaced"},
	} {
		t.Run(what, func(t *testing.T) {
			files := readFiles(t, crashed, "data")
			if delete(files, name); c.data != nil {
				files[name] = c.data
			}
			mem := place(t, files)
			wantRefused(t, mem, name, c.why)
			must(mem.Remove(mem.PathJoin("data", logsName)))
			o := options(t)
			o.FS = mem
			s := mustOpen(t, "data", o)
			defer mustClose(t, s)
			if head := logOf(t, s, "r").State().Head; head < 50 || head >= 200 {
				t.Errorf("head %d", head)
			}
			if noted, err := readLogs(mem, "data"); err != nil || len(noted) == 0 {
				t.Errorf("noted anew: %v, %v", noted, err)
			}
		})
	}
	// The control: as it is it opens, and so it does without the note, as a
	// release before this one left it.
	for _, without := range []string{"", logsName} {
		files := readFiles(t, crashed, "data")
		delete(files, without)
		mem := place(t, files)
		if r := mustCheck(t, mem, "data"); r.Damaged() {
			t.Errorf("without %q: %v", without, r.Problems)
		}
		o := options(t)
		o.FS = mem
		s := mustOpen(t, "data", o)
		if head := logOf(t, s, "r").State().Head; head != 200 {
			t.Errorf("without %q: head %d", without, head)
		}
		mustClose(t, s)
	}
}

// TestP1_LostFile takes away one file of a directory after the other. Either
// the directory is refused, and the check says so too, or nothing is missing.
func TestP1_LostFile(t *testing.T) {
	t.Parallel()
	for _, crashed := range []bool{false, true} {
		mem, dir, _ := directory(t, crashed)
		all := readFiles(t, mem, dir)
		whole := damage{t: t, files: all}
		want := whole.open(all)
		refused := 0
		for name := range all {
			files := readFiles(t, mem, dir)
			delete(files, name)
			r, err := Check(t.Context(), "data", CheckOptions{FS: place(t, files)})
			if err != nil {
				t.Errorf("without %s: the check fails: %v", name, err)
			}
			got := whole.open(files)
			switch {
			case got == nil:
				refused++
				if !r.Damaged() {
					t.Errorf("without %s it does not open, and the check is content", name)
				}
			case got.err != nil || len(got.events) != len(want.events):
				t.Errorf("crashed %t: without %s it opens with %d events for %d, %v", crashed, name, len(got.events), len(want.events), got.err)
			}
		}
		if refused < 3 {
			t.Errorf("only %d of %d files are missed", refused, len(all))
		}
	}
}

// TestP1_LostManifest deletes everything that names the tables: no new store is
// begun on top of what is left.
func TestP1_LostManifest(t *testing.T) {
	t.Parallel()
	mem, dir, _ := directory(t, true)
	for _, also := range []string{"", ".log", ".sst", logsName} {
		files := readFiles(t, mem, dir)
		for name := range files {
			if strings.Contains(strings.ToLower(name), "manifest") || also != "" && strings.HasSuffix(name, also) {
				delete(files, name)
			}
		}
		mem := place(t, files)
		o := options(t)
		o.FS = mem
		if s, err := Open("data", o); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("without the manifest and *%s: %v", also, err)
			if err == nil {
				mustClose(t, s)
			}
		}
		if after := readFiles(t, mem, "data"); len(after) < len(files) {
			t.Errorf("of %d files %d are left", len(files), len(after))
		}
	}
}

// TestP1_LostLogOfBackup opens a copy that lacks its log.
func TestP1_LostLogOfBackup(t *testing.T) {
	t.Parallel()
	mem := crashfs.New()
	o := options(t)
	o.FS = mem
	s := mustOpen(t, "data", o)
	fill(t, logOf(t, s, "r"), 40)
	must(s.Backup(t.Context(), "copy"))
	mustClose(t, s)
	files := readFiles(t, mem, "copy")
	if r := mustCheck(t, place(t, files), "data"); r.Damaged() {
		t.Error(r.Problems)
	}
	name, _ := newestLog(mem, "copy")
	delete(files, name)
	wantRefused(t, place(t, files), name, "is missing, and with it the newest events")
}

// TestP1_CrashAtEveryStep loses the power before each change of the file
// system, with and without what was not synced: every time the directory opens,
// no file is missed, and what was acknowledged is there.
func TestP1_CrashAtEveryStep(t *testing.T) {
	t.Parallel()
	type cut struct {
		fs    *crashfs.FS
		acked uint64
		step  string
	}
	mem := crashfs.New()
	var mu sync.Mutex
	var acked uint64
	var cuts []cut
	o := options(t)
	o.FS = errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		for _, percent := range []int{0, 50, 100} {
			clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(len(cuts)), 1))})
			cuts = append(cuts, cut{clone, acked, fmt.Sprintf("%d%% before %v of %s", percent, op.Kind, op.Path)})
		}
		return nil
	}))
	for round := range 3 {
		s := mustOpen(t, "data", o)
		l := logOf(t, s, "r")
		for n := l.State().Head; n < uint64(20*(round+1)); n++ {
			must(appendOne(t, l, n))
			mu.Lock()
			acked = n + 1
			mu.Unlock()
			if n%8 == 7 {
				must(s.db.Flush()) // the logs change
			}
		}
		s.logs.note()
		mustClose(t, s)
	}
	step := 1
	if testing.Short() {
		step = 7
	}
	tried := 0
	for i := 0; i < len(cuts); i += step {
		c := cuts[i]
		if _, err := c.fs.Stat("data"); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		tried++
		o := options(t)
		o.FS = c.fs
		s, err := Open("data", o)
		if err != nil {
			t.Fatalf("%s: %v", c.step, err)
		}
		if head := logOf(t, s, "r").State().Head; head < c.acked {
			t.Errorf("%s: head %d, acknowledged %d", c.step, head, c.acked)
		}
		mustClose(t, s)
	}
	t.Logf("%d cuts", tried)
	if tried < 100 {
		t.Errorf("only %d cuts", tried)
	}
}

// TestUnflushed compares what is read out of the manifest with the logs that
// Pebble needs: after a clean stop the newest alone.
func TestUnflushed(t *testing.T) {
	mem, dir, _ := directory(t, false)
	_, newest := newestLog(mem, dir)
	if n, err := unflushed(mem, dir); err != nil || n != newest {
		t.Errorf("logs are needed from %d on, %v; the newest is %d", n, err, newest)
	}
}

// FuzzLogSizes reads any bytes as the note of the logs, and as a record of the
// manifest: only what text writes is one, and nothing panics.
func FuzzLogSizes(f *testing.F) {
	f.Add([]byte(logSizes{"000012.log": 345, "000013.log": 0}.text()))
	f.Add([]byte(logSizes{}.text()))
	f.Add([]byte("000012.log 1\n00000000\n"))
	f.Add([]byte("\x01\x02ab\x02\x0c"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseLogs(b)
		if err == nil && s.text() != string(b) {
			t.Errorf("%q is read as %v", b, s)
		}
		if err != nil && !errors.Is(err, errSum) {
			t.Errorf("%q: %v", b, err)
		}
		_ = unflushedOf(b)
	})
}
