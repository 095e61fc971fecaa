package pebble

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// tableOf makes a data directory with one table of several rooms, and returns
// the table's path and contents.
func tableOf(t *testing.T) (dir, file string, data []byte) {
	t.Helper()
	dir = t.TempDir()
	s := mustOpen(t, dir, options(t))
	for i := range 3 {
		l := logOf(t, s, fmt.Sprint("room", i))
		change(t, l, "alice", true)
		fill(t, l, 1000)
		p := []store.Position{{Room: l.room.name, Incarnation: s.Incarnation(), Offset: 9}}
		must(s.PutSession(t.Context(), store.Session{ID: fmt.Sprint("s_", i), User: "alice", Attach: 1}, p))
	}
	must(s.db.Flush())
	mustClose(t, s)
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) != 1 {
		t.Fatal(tables, err)
	}
	data, err = os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	return dir, tables[0], data
}

// TestCheckOneBlock damages one block of a table after the other: that is one
// finding, which names the file and what the block covers, and nothing is
// reported that only follows from it.
func TestCheckOneBlock(t *testing.T) {
	t.Parallel()
	dir, file, good := tableOf(t)
	f, err := vfs.Default.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := tableLayout(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	covered := regexp.MustCompile(`events (\d+) to (\d+) of room "(room\d)"`)
	ranges := 0
	for i, b := range blocks {
		if raceDetector && i%6 > 0 {
			continue // Pebble looks for the flipped bit, which then takes minutes
		}
		bad := bytes.Clone(good)
		bad[b.Offset+b.Length/2] ^= 1
		must(os.WriteFile(file, bad, 0o600))
		r, err := Check(t.Context(), dir, CheckOptions{})
		if err != nil || r.Found != 1 || len(r.Problems) != 1 || r.Problems[0].File != filepath.Base(file) {
			t.Fatalf("block at %d: %d found: %v, %v", b.Offset, r.Found, r.Problems, err)
		}
		said := covered.FindStringSubmatch(r.Problems[0].Detail)
		if said == nil || ranges > 0 || raceDetector {
			continue
		}
		ranges++
		var first, last uint64
		_, err = fmt.Sscan(said[1]+" "+said[2], &first, &last)
		must(err)
		wantUnread(t, dir, said[3], first, last)
	}
	if len(blocks) < 12 || ranges == 0 && !raceDetector {
		t.Errorf("%d blocks, %d of them with a range of events", len(blocks), ranges)
	}
	must(os.WriteFile(file, good, 0o600))
	if r, err := Check(t.Context(), dir, CheckOptions{}); err != nil || r.Damaged() {
		t.Errorf("without damage: %v, %v", r.Problems, err)
	}
}

// wantUnread wants exactly these events to be those that cannot be read, with
// an error for people, in the log too.
func wantUnread(t *testing.T, dir, room string, first, last uint64) {
	t.Helper()
	var out lockedBuffer
	o := options(t)
	o.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := mustOpen(t, dir, o)
	defer mustClose(t, s)
	l := logOf(t, s, room)
	for offset, wantErr := range map[uint64]bool{first: true, last: true, last + 1: false, first - 1: false} {
		if offset == 0 {
			continue
		}
		_, err := l.Read(t.Context(), offset-1, offset, 1, nil)
		if wantErr != errors.Is(err, store.ErrCorrupt) {
			t.Errorf("offset %d of [%d, %d]: %v", offset, first, last, err)
		}
		if err == nil {
			continue
		}
		where := fmt.Sprintf("room %q: offset %d: ", room, offset)
		if text := err.Error(); !strings.HasPrefix(text, where) || !strings.Contains(text, "block") || strings.ContainsAny(text, "\n<") {
			t.Errorf("the error says %q", text)
		}
	}
	if strings.Contains(out.String(), "carrier") || !strings.Contains(out.String(), "damaged block") {
		t.Errorf("the log says:\n%s", out.String())
	}
}

// TestPlainText has what Pebble says without the lines that are for programs.
func TestPlainText(t *testing.T) {
	err := errors.New("pebble: file 000007: block 0/1: mismatch\n<corruption detail carrier>")
	for _, text := range []string{
		readError(err).Error(), plainText(err.Error()), failure("background: %v", []any{err}).Error(),
	} {
		if !strings.HasSuffix(text, "mismatch") {
			t.Errorf("%q", text)
		}
	}
}
