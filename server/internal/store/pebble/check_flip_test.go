package pebble

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// outcomes counts what damage came to.
type outcomes struct {
	tried   int
	atOpen  int // the store does not open
	byCheck int // it opens, and the check reports damage
	byRead  int // of byCheck: some read fails
	noted   int // it opens, the end of a log is lost, and the check says that it may be
	same    int // everything reads as before
}

// TestDamage flips bits and bytes in every file of a data directory, and cuts
// every file short. Whatever is damaged is reported at open or by the check, or
// nothing is different. No read ever returns another event than the one that was
// written.
func TestDamage(t *testing.T) {
	if *flipsPerFile == 0 {
		t.Skip("slow, and slower under the race detector: `make test-damage` runs it")
	}
	for _, crashed := range []bool{false, true} {
		t.Run(fmt.Sprintf("crashed=%t", crashed), func(t *testing.T) {
			t.Parallel()
			mem, dir, ever := directory(t, crashed)
			d := damage{t: t, files: readFiles(t, mem, dir), ever: ever}
			noted, _, err := readSum(mem, dir)
			if err != nil {
				t.Fatal(err)
			}
			d.manifest = noted.name
			d.want = d.open(d.files)
			if d.want == nil {
				t.Fatal("the directory does not open")
			}
			for name, data := range d.files {
				before := d.count
				d.flips(name, data)
				d.cuts(name, data)
				of := d.count.minus(before)
				t.Logf("%-30s %6d bytes: %s", name, len(data), of)
				if name == d.manifest && of.atOpen != of.tried {
					t.Errorf("%s is opened damaged", name)
				}
			}
			t.Log("in all:", d.count)
			// The control: without the check these would have gone unnoticed at
			// open.
			if d.count.byCheck < 20 {
				t.Errorf("only %d were left for the check to find", d.count.byCheck)
			}
			if d.count.atOpen < 20 {
				t.Errorf("only %d were found at open", d.count.atOpen)
			}
		})
	}
}

func (o outcomes) minus(p outcomes) outcomes {
	return outcomes{o.tried - p.tried, o.atOpen - p.atOpen, o.byCheck - p.byCheck, o.byRead - p.byRead, o.noted - p.noted, o.same - p.same}
}

func (o outcomes) String() string {
	return fmt.Sprintf("%d tried: %d found at open, %d by the check (%d of them make reads fail), %d lost the end of a log and were noted, %d changed nothing",
		o.tried, o.atOpen, o.byCheck, o.byRead, o.noted, o.same)
}

func readFiles(t *testing.T, mem vfs.FS, dir string) map[string][]byte {
	t.Helper()
	names, err := mem.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for _, name := range names {
		files[name] = readFile(t, mem, mem.PathJoin(dir, name))
	}
	return files
}

// damage tries damaged copies of a directory.
type damage struct {
	t     *testing.T
	files map[string][]byte
	ever  map[string]string // all events there have been, trimmed ones too
	want  *contents
	count outcomes
	// manifest is the one in use: damage of it never opens.
	manifest string
}

// flipsPerFile is how many bits, and how many bytes, are changed in each file.
// A changed byte is slow to try: Pebble looks for a single bit that would
// explain it.
var flipsPerFile = flag.Int("flips", 0, "bits, and bytes, changed in each file by TestDamage")

const cutsPerFile = 10

// flips changes a bit here and a whole byte there.
func (d *damage) flips(name string, data []byte) {
	for _, at := range places(len(data), *flipsPerFile) {
		for _, mask := range []byte{1 << (at % 8), 0xff} {
			changed := append([]byte(nil), data...)
			changed[at] ^= mask
			d.try(fmt.Sprintf("%s: byte %d ^ %#x", name, at, mask), name, changed)
		}
	}
}

func (d *damage) cuts(name string, data []byte) {
	for _, at := range places(len(data), cutsPerFile) {
		d.try(fmt.Sprintf("%s: cut to %d bytes", name, at), name, data[:at])
	}
}

// places returns up to n places in [0, size), the first and the last ones
// always.
func places(size, n int) []int {
	at := make(map[int]bool)
	for i := range min(size, 4) {
		at[i], at[size-1-i] = true, true
	}
	for len(at) < min(size, n) {
		at[rand.IntN(size)] = true
	}
	var list []int
	for i := range at {
		list = append(list, i)
	}
	return list
}

func (d *damage) try(what, name string, data []byte) {
	d.count.tried++
	files := make(map[string][]byte, len(d.files))
	for n, b := range d.files {
		files[n] = b
	}
	files[name] = data
	report, err := Check(context.Background(), "data", CheckOptions{FS: d.place(files)})
	if err != nil {
		d.t.Errorf("%s: the check fails: %v", what, err)
	}
	got := d.open(files)
	switch {
	case got == nil:
		d.count.atOpen++
		if !report.Damaged() {
			d.t.Errorf("%s: the directory does not open, and the check is content", what)
		}
		return
	case report.Damaged():
		d.count.byCheck++
		if got.err != nil {
			d.count.byRead++
		}
	case got.err == nil && reflect.DeepEqual(got.records, d.want.records) && reflect.DeepEqual(got.events, d.want.events):
		d.count.same++
	case len(report.Notes) > 0:
		d.count.noted++
	default:
		d.t.Errorf("%s: nothing is reported, and it reads otherwise (%d events for %d): %v", what, len(got.events), len(d.want.events), got.err)
	}
	for place, e := range got.events {
		if e != d.ever[place] {
			d.t.Errorf("%s: event %s is another one", what, place)
		}
	}
}

func (d *damage) place(files map[string][]byte) *vfs.MemFS {
	d.t.Helper()
	mem := vfs.NewMem()
	must(mem.MkdirAll("data", 0o700))
	for name, data := range files {
		f, err := mem.Create(mem.PathJoin("data", name), vfs.WriteCategoryUnspecified)
		must(err)
		_, err = f.Write(bytes.Clone(data))
		must(errors.Join(err, f.Close()))
	}
	return mem
}

// open reads everything there is with a store; nil if that does not open.
func (d *damage) open(files map[string][]byte) *contents {
	d.t.Helper()
	o := options(d.t)
	o.FS = d.place(files)
	o.Fatal = func(error) {}
	s, err := Open("data", o)
	if err != nil {
		return nil
	}
	got, err := readContents(context.Background(), s)
	got.err = err
	_ = s.Close() // of a damaged store
	return &got
}
