package pebble

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"sync"

	db "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// sumName is the file that says how the manifest begins.
//
// Pebble takes a record of its manifest, the list of tables, that is not whole
// for the end of it: a write that the loss of power cut off. Damage looks the
// same, and then the tables listed from there on are forgotten without a word,
// although the logs that their events came from are deleted. So whenever a
// flush or a compaction is in the manifest, and before what it replaces is
// deleted, the length and the checksum of the manifest are noted here. What was noted was synced: if a
// manifest does not begin with it, that is damage. What follows it may be cut
// off, and nothing is lost by that: the logs are still there.
const sumName = "manifest.sum"

// manifestSum is what sumName holds.
type manifestSum struct {
	name string // of the manifest
	size int64  // how many of its bytes are covered
	sum  uint32 // CRC-32C of them
}

// line is the sum as a line, with a checksum of its own.
func (m manifestSum) line() string {
	text := fmt.Sprintf("%s %d %08x", m.name, m.size, m.sum)
	return fmt.Sprintf("%s %08x\n", text, crc32.Checksum([]byte(text), castagnoli))
}

var errSum = errors.New("not as it was written")

func parseSum(b []byte) (m manifestSum, err error) {
	// The form has one spelling, so comparing covers whatever Sscanf lets pass.
	var own uint32
	if _, err := fmt.Sscanf(string(b), "%s %d %x %x\n", &m.name, &m.size, &m.sum, &own); err != nil || m.size < 0 || m.line() != string(b) {
		return manifestSum{}, errSum
	}
	return m, nil
}

// readSum returns what was noted; ok is false if nothing ever was.
func readSum(fsys vfs.FS, dir string) (m manifestSum, ok bool, err error) {
	b, err := readWhole(fsys, fsys.PathJoin(dir, sumName))
	if errors.Is(err, fs.ErrNotExist) {
		return manifestSum{}, false, nil
	}
	if err != nil {
		return manifestSum{}, false, err
	}
	m, err = parseSum(b)
	return m, err == nil, err
}

// writeNote replaces a file by one with that text, durably and all at once.
func writeNote(fsys vfs.FS, dir, name, text string) (err error) {
	name = fsys.PathJoin(dir, name)
	f, err := fsys.Create(name+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(name+".new", name); err != nil {
		return err
	}
	return syncDir(fsys, dir)
}

func readWhole(fsys vfs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// Of its size at once: a buffer that grows is copied and cleared several times.
	b := make([]byte, info.Size())
	n, err := io.ReadFull(f, b)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = nil // it has become shorter
	}
	return b[:n], err
}

// errForgets says what opening would do.
const errForgets = "events that were acknowledged would be forgotten if the directory were opened. " +
	"Restore it from a backup; or remove " + sumName + " to open what is left"

// damagedFileError says which file of the directory is damaged. It wraps
// store.ErrCorrupt.
type damagedFileError struct{ name, detail string }

func (e *damagedFileError) Error() string {
	return fmt.Sprintf("%v: %s: %s", store.ErrCorrupt, e.name, e.detail)
}

func (e *damagedFileError) Unwrap() error { return store.ErrCorrupt }

// checkSum holds the manifest of a directory against what was noted of it. A
// *damagedFileError says that it is not what it was; errSum, that the note is not,
// by which nothing is lost.
func checkSum(fsys vfs.FS, dir string) error {
	noted, ok, err := readSum(fsys, dir)
	if err != nil || !ok {
		return err
	}
	desc, err := db.Peek(dir, fsys)
	if err != nil {
		return readError(err)
	}
	if !desc.Exists {
		return &damagedFileError{noted.name, "no file marker.manifest names it any more: " + errForgets}
	}
	switch current := fsys.PathBase(desc.ManifestFilename); cmpNumbered(current, noted.name) {
	case +1: // it was replaced
		return nil
	case -1:
		return &damagedFileError{current, fmt.Sprintf("it was replaced by %s, and is in use again: %s", noted.name, errForgets)}
	}
	b, err := readWhole(fsys, fsys.PathJoin(dir, noted.name))
	if err != nil {
		return readError(err)
	}
	if int64(len(b)) < noted.size {
		return &damagedFileError{noted.name, fmt.Sprintf("it has %d bytes, and had %d that were synced: %s", len(b), noted.size, errForgets)}
	}
	if crc32.Checksum(b[:noted.size], castagnoli) != noted.sum {
		return &damagedFileError{noted.name, fmt.Sprintf("its first %d bytes are not as they were written: %s", noted.size, errForgets)}
	}
	return nil
}

// cmpNumbered compares names that end in numbers, written with as many digits
// as they need, and at least six.
func cmpNumbered(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// ledger keeps sumName up to date while the store is open.
type ledger struct {
	fs     vfs.FS
	dir    string
	logger *slog.Logger

	mu    sync.Mutex
	noted manifestSum // guarded by mu; the manifest in use, and what is noted of it
}

// openLedger checks the manifest before Pebble opens it, and notes the whole
// records of it: Pebble is about to delete the logs that they make needless.
func openLedger(fsys vfs.FS, dir string, logger *slog.Logger) (*ledger, error) {
	l := &ledger{fs: fsys, dir: dir, logger: logger}
	err := checkSum(fsys, dir)
	if errors.Is(err, errSum) {
		logger.Warn("store: the note about the manifest is damaged; it is written anew", "file", fsys.PathJoin(dir, sumName))
	} else if err != nil {
		return nil, err
	}
	desc, err := db.Peek(dir, fsys)
	if err != nil {
		return nil, readError(err)
	}
	if !desc.Exists {
		return l, nil
	}
	b, err := readWhole(fsys, desc.ManifestFilename)
	if err != nil {
		return nil, readError(err)
	}
	at, torn := readRecords(bytes.NewReader(b), 0)
	if torn != nil {
		logger.Warn("store: the manifest ends in a record that is not whole: its write was cut off, which loses nothing",
			"file", desc.ManifestFilename, "byte", at, "size", len(b))
	}
	l.noted.name = fsys.PathBase(desc.ManifestFilename)
	return l, l.extend(at)
}

// use says which manifest is in use from now on.
func (l *ledger) use(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noted = manifestSum{name: l.fs.PathBase(path)}
}

// note covers all of the manifest that is in use. That it cannot is no
// failure of the store: what was noted before stays true.
func (l *ledger) note() {
	if err := l.extend(-1); err != nil {
		l.logger.Warn("store: the end of the manifest could not be noted; until it is, damage of it is found by a check, and not when the directory is opened",
			"file", l.fs.PathJoin(l.dir, sumName), "error", err)
	}
}

// extend covers the manifest up to a size; -1: all of it.
func (l *ledger) extend(size int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.noted.name == "" {
		return nil
	}
	more, err := l.synced(size)
	if err != nil || len(more) == 0 {
		return err
	}
	next := l.noted
	next.sum = crc32.Update(next.sum, castagnoli, more)
	next.size += int64(len(more))
	if err := writeNote(l.fs, l.dir, sumName, next.line()); err != nil {
		return err
	}
	l.noted = next
	return nil
}

// synced returns what the manifest has behind what is noted, once it is
// durable. A record that is being written may be there in part.
func (l *ledger) synced(size int64) (more []byte, err error) {
	f, err := l.fs.Open(l.fs.PathJoin(l.dir, l.noted.name))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if size < 0 {
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		size = info.Size()
	}
	more = make([]byte, max(0, size-l.noted.size))
	if len(more) == 0 {
		return nil, nil
	}
	if _, err := f.ReadAt(more, l.noted.size); err != nil {
		return nil, err
	}
	return more, f.Sync()
}
