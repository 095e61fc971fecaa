package pebble

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/reprise-chat/reprise/server/internal/store"
	"github.com/reprise-chat/reprise/server/internal/store/crashfs"
)

// rewriteFile replaces a file.
func rewriteFile(tb testing.TB, fsys vfs.FS, name string, data []byte) {
	tb.Helper()
	f, err := fsys.Create(name, vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write(bytes.Clone(data)) // a file in memory spoils what it was given, under the race detector
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// TestP1_DamagedManifest damages the list of tables wherever it was noted: the
// directory is refused with the name of the file, and the check says the same.
func TestP1_DamagedManifest(t *testing.T) {
	t.Parallel()
	for _, crashed := range []bool{false, true} {
		mem, dir, _ := directory(t, crashed)
		noted, ok, err := readSum(mem, dir)
		if !ok || err != nil {
			t.Fatal(noted, ok, err)
		}
		path := mem.PathJoin(dir, noted.name)
		good := readFile(t, mem, path)
		if noted.size != int64(len(good)) {
			t.Errorf("%d of %d bytes are noted", noted.size, len(good))
		}
		refused := func(what string, bad []byte) {
			t.Helper()
			rewriteFile(t, mem, path, bad)
			o := options(t)
			o.FS = mem
			s, err := Open(dir, o)
			if err == nil {
				mustClose(t, s)
				t.Fatalf("%s: it opens", what)
			}
			if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), noted.name) || !strings.Contains(err.Error(), sumName) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		for _, at := range places(len(good), 40) {
			bad := append([]byte(nil), good...)
			bad[at] ^= 1 << (at % 8)
			refused(fmt.Sprint("flipped at ", at), bad)
			refused(fmt.Sprint("cut to ", at), good[:at])
		}
		r := mustCheck(t, mem, dir)
		if !r.Damaged() || r.Problems[0].File != noted.name {
			t.Errorf("the check reports %+v", r.Problems)
		}

		// The way out: without the note it is Pebble that decides.
		if err := mem.Remove(mem.PathJoin(dir, sumName)); err != nil {
			t.Fatal(err)
		}
		o := options(t)
		o.FS = mem
		rewriteFile(t, mem, path, good[:len(good)-1])
		s, err := Open(dir, o)
		if damaged := (*damagedFileError)(nil); errors.As(err, &damaged) {
			t.Errorf("without the note: %v", err)
		}
		if err == nil {
			mustClose(t, s)
		}
	}
}

// TestP1_TornManifest loses the power whenever the list of tables is written,
// and cuts the record that was being written at each byte: the directory opens,
// and everything acknowledged is there.
func TestP1_TornManifest(t *testing.T) {
	t.Parallel()
	mem := crashfs.New()
	type cut struct{ synced, all *crashfs.FS }
	var mu sync.Mutex
	var first *cut // at the first sync of the list since it was nil
	o := options(t)
	o.FS = errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if op.Kind == errorfs.OpFileSync && strings.Contains(op.Path, "MANIFEST-") && first == nil {
			first = &cut{
				mem.CrashClone(vfs.CrashCloneCfg{}),
				mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}),
			}
		}
		return nil
	}))
	s := mustOpen(t, "data", o)
	l := logOf(t, s, "r")
	cuts := 0
	for n := uint64(50); n <= 150; n += 50 {
		fill(t, l, n)
		mu.Lock()
		first = nil
		mu.Unlock()
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
		cuts += tearManifest(t, readFiles(t, first.synced, "data"), readFiles(t, first.all, "data"), n)
	}
	mustClose(t, s)
	if cuts < 100 {
		t.Errorf("only %d bytes of records were not synced", cuts)
	}
}

// tearManifest cuts what was not synced of the manifest at each byte.
func tearManifest(t *testing.T, synced, all map[string][]byte, acknowledged uint64) (cuts int) {
	t.Helper()
	for name, whole := range all {
		if !strings.HasPrefix(name, "MANIFEST-") {
			continue
		}
		for at := len(synced[name]); at < len(whole); at++ {
			all[name] = whole[:at]
			o := options(t)
			o.FS = (&damage{t: t}).place(all)
			s, err := Open("data", o)
			if err != nil {
				t.Fatalf("%s cut to %d of %d bytes: %v", name, at, len(whole), err)
			}
			if head := logOf(t, s, "r").State().Head; head != acknowledged {
				t.Errorf("%s cut to %d of %d bytes: head %d, acknowledged %d", name, at, len(whole), head, acknowledged)
			}
			mustClose(t, s)
			cuts++
		}
		all[name] = whole
	}
	return cuts
}

// TestManifestNote looks after the note itself: a damaged one is reported and
// written anew, one about a list that was replaced is none, and without its
// list nothing opens.
func TestManifestNote(t *testing.T) {
	t.Parallel()
	mem, dir, _ := directory(t, false)
	noted, _, err := readSum(mem, dir)
	if err != nil {
		t.Fatal(err)
	}
	o := options(t)
	o.FS = mem
	path := mem.PathJoin(dir, sumName)
	rewriteFile(t, mem, path, []byte(strings.Replace(noted.line(), "MANIFEST", "MANIFESt", 1)))
	if r := mustCheck(t, mem, dir); !r.Damaged() || r.Problems[0].File != sumName {
		t.Errorf("the check reports %+v", r.Problems)
	}
	var out strings.Builder
	o.Logger = slog.New(slog.NewTextHandler(&out, nil))
	mustOpenAndClose(t, dir, o)
	if !strings.Contains(out.String(), sumName) {
		t.Error("a damaged note is not mentioned")
	}
	if again, ok, err := readSum(mem, dir); !ok || err != nil || again.name == noted.name && again.size < noted.size {
		t.Errorf("%+v, %t, %v", again, ok, err)
	}
	older := noted
	older.name = "MANIFEST-000000"
	rewriteFile(t, mem, path, []byte(older.line()))
	mustOpenAndClose(t, dir, o)

	newer := noted
	newer.name = "MANIFEST-1000000"
	rewriteFile(t, mem, path, []byte(newer.line()))
	if _, err := Open(dir, o); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a list that had been replaced: %v", err)
	}
	names, err := mem.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "marker.manifest.") {
			must(mem.Remove(mem.PathJoin(dir, name)))
		}
	}
	if _, err := Open(dir, o); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("no list at all: %v", err)
	}
}

func mustOpenAndClose(t *testing.T, dir string, o Options) {
	t.Helper()
	mustClose(t, mustOpen(t, dir, o))
}

// FuzzManifestSum reads any bytes as a note: only what line writes is one.
func FuzzManifestSum(f *testing.F) {
	f.Add([]byte(manifestSum{name: "MANIFEST-000012", size: 345, sum: 6}.line()))
	f.Add([]byte("MANIFEST-000012 345 00000006 00000000\n"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseSum(b)
		if err == nil && m.line() != string(b) {
			t.Errorf("%q is read as %+v", b, m)
		}
		if err != nil && !errors.Is(err, errSum) {
			t.Errorf("%q: %v", b, err)
		}
	})
}

// TestP1_DamagedLog damages the newest log where it is proven to have been on
// disk: the directory is refused, and opens once the file is cut as the error
// says.
func TestP1_DamagedLog(t *testing.T) {
	t.Parallel()
	mem, dir, _ := directory(t, true)
	name, _ := newestLog(mem, dir)
	path := mem.PathJoin(dir, name)
	bad := readFile(t, mem, path)
	bad[len(bad)/2] ^= 1
	rewriteFile(t, mem, path, bad)
	o := options(t)
	o.FS = mem
	_, err := Open(dir, o)
	if damaged := (*damagedFileError)(nil); !errors.As(err, &damaged) || damaged.name != name || !errors.Is(err, store.ErrCorrupt) {
		t.Fatalf("Open: %v", err)
	}
	e, err := readLogEnd(mem, dir)
	if err != nil {
		t.Fatal(err)
	}
	rewriteFile(t, mem, path, bad[:e.at])
	must(mem.Remove(mem.PathJoin(dir, logsName)))
	s := mustOpen(t, dir, o)
	defer mustClose(t, s)
	if got, err := readContents(t.Context(), s); err != nil || len(got.events) == 0 {
		t.Errorf("%d events, %v", len(got.events), err)
	}
}
