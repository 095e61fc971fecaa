package pebble

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	db "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reprise-chat/reprise/server/internal/fault"
)

// logsName is the file that says which logs of writes there are, and how much
// of each was on disk for certain.
//
// Pebble replays the logs that it finds. One that is missing, empty, or an older
// copy of itself looks to it like one that was never written, and the events in
// it are forgotten without a word. So a log is noted here when it is made,
// before anything is written to it, and its size before the first write in it
// is acknowledged and whenever it has doubled since. A log need not be there any more
// once the manifest says that its writes are in tables; the manifest is on disk
// before Pebble removes the log. So at no moment does a crash leave a directory
// that lacks what is noted.
const logsName = "logs.sum"

// logSizes says of each log, by name, how many bytes of it were synced.
type logSizes map[string]int64

// text is the sizes as lines, with a checksum.
func (s logSizes) text() string {
	var b strings.Builder
	for _, name := range slices.SortedFunc(maps.Keys(s), cmpNumbered) {
		fmt.Fprintf(&b, "%s %d\n", name, s[name])
	}
	return fmt.Sprintf("%s%08x\n", b.String(), crc32.Checksum([]byte(b.String()), castagnoli))
}

// parseLogs is text the other way round. The error is errSum.
func parseLogs(b []byte) (logSizes, error) {
	s := make(logSizes)
	lines := strings.Split(string(b), "\n")
	for _, line := range lines[:max(0, len(lines)-2)] {
		name, digits, _ := strings.Cut(line, " ")
		size, err := strconv.ParseInt(digits, 10, 64)
		if _, known := s[name]; err != nil || size < 0 || known {
			return nil, errSum
		}
		s[name] = size
	}
	// There is one spelling, so comparing covers whatever was let pass.
	if s.text() != string(b) {
		return nil, errSum
	}
	return s, nil
}

// readLogs returns what was noted; nil if nothing ever was, as by a release
// before this one.
func readLogs(fsys vfs.FS, dir string) (logSizes, error) {
	b, err := readWhole(fsys, fsys.PathJoin(dir, logsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseLogs(b)
}

// logNumber returns the number of a log.
func logNumber(name string) (n uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, ".log")
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, ok && err == nil
}

// unflushed returns the number of the oldest log of which not all writes are in
// tables, as the manifest says; 0 if there is no manifest.
func unflushed(fsys vfs.FS, dir string) (uint64, error) {
	desc, err := db.Peek(dir, fsys)
	if err != nil || !desc.Exists {
		return 0, err
	}
	b, err := readWhole(fsys, desc.ManifestFilename)
	if err != nil {
		return 0, err
	}
	var oldest uint64
	// What is wrong with the manifest is found elsewhere.
	_, _ = eachRecord(bytes.NewReader(b), 0, func(edit []byte) {
		if n := unflushedOf(edit); n > oldest {
			oldest = n
		}
	})
	return oldest, nil
}

// The tags that a record of the manifest can have before the one of the logs.
const (
	editComparer = 1 // a string
	editLog      = 2 // the number of the oldest log that is needed
)

// unflushedOf returns what a record of the manifest says of the logs; 0 if it
// says nothing. Pebble writes that first, behind the name of the order of keys.
func unflushedOf(edit []byte) uint64 {
	tag, n := binary.Uvarint(edit)
	if n > 0 && tag == editComparer {
		edit = edit[n:]
		size, n := binary.Uvarint(edit)
		if n <= 0 || size > uint64(len(edit)-n) {
			return 0
		}
		edit = edit[n+int(size):]
		return unflushedOf(edit)
	}
	if n <= 0 || tag != editLog {
		return 0
	}
	number, n := binary.Uvarint(edit[n:])
	if n <= 0 {
		return 0
	}
	return number
}

// endSlack is what may follow the last record of a log in what was noted of it:
// filling to the end of a block, and the mark of a closed log. The smallest
// record is longer.
const endSlack = chunkSyncHeader - 1 + chunkHeader

// checkLogs holds the logs of a directory against what was noted of them, and
// returns the damaged ones, oldest first, and the sizes of those that are
// needed. An error that wraps errSum says that the note is not as it was written,
// by which nothing is lost.
func checkLogs(fsys vfs.FS, dir string) (needed logSizes, damaged []*damagedFileError, err error) {
	noted, err := readLogs(fsys, dir)
	if err != nil {
		return nil, nil, err
	}
	if fault.Broken(fault.ForgetLogs) {
		noted = nil
	}
	from, err := unflushed(fsys, dir)
	if err != nil {
		return nil, nil, readError(err)
	}
	needed = make(logSizes)
	for _, name := range slices.SortedFunc(maps.Keys(noted), cmpNumbered) {
		number, ok := logNumber(name)
		if !ok || number < from {
			continue
		}
		needed[name] = noted[name]
		bad, err := checkLogSize(fsys, dir, name, number, noted[name])
		if err != nil {
			return nil, nil, readError(err)
		}
		if bad != nil {
			damaged = append(damaged, bad)
		}
	}
	return needed, damaged, nil
}

// checkLogSize returns what is wrong with a log that must be there; else nil.
func checkLogSize(fsys vfs.FS, dir, name string, number uint64, noted int64) (*damagedFileError, error) {
	f, err := fsys.Open(fsys.PathJoin(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		if noted == 0 {
			return &damagedFileError{name, "it is missing. Nothing that was acknowledged is known to have been in it, but it must be there: " + restoreLogs}, nil
		}
		return &damagedFileError{name, fmt.Sprintf("it is missing, and with it the newest events, sessions and positions that were acknowledged, at least %d bytes of them: %s", noted, restoreLogs)}, nil
	}
	if err != nil || noted == 0 {
		if err == nil {
			err = f.Close()
		}
		return nil, err
	}
	end, _ := readRecords(f, number)
	if err := f.Close(); err != nil {
		return nil, err
	}
	if end+endSlack >= noted {
		return nil, nil
	}
	return &damagedFileError{name, fmt.Sprintf("its records end at byte %d, and %d bytes of it were on disk: it was cut short, or replaced by an older one, "+
		"and what was acknowledged last is lost: %s", end, noted, restoreLogs)}, nil
}

// restoreLogs says what to do.
const restoreLogs = "put the file back, or restore the directory from a backup; or remove " + logsName + " to open what is left without it"

// checkMissing refuses a directory with logs or tables and nothing that lists
// the tables: Pebble would begin a new store there and delete them.
func checkMissing(fsys vfs.FS, dir string) error {
	desc, err := db.Peek(dir, fsys)
	if err != nil {
		return readError(err)
	}
	if desc.Exists {
		return nil
	}
	names, err := fsys.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		k := kindOf(name)
		if name == lockName {
			info, err := fsys.Stat(fsys.PathJoin(dir, name))
			if err != nil || info.Size() == 0 {
				continue // no store was made here yet
			}
			k = fileLog
		}
		if k == fileLog || k == fileTable || name == logsName {
			return &damagedFileError{"marker.manifest", "the file of that name is missing, which says where the list of tables is, and so are perhaps others: the file " + name +
				" shows that there was a store. Restore the directory from a backup; or remove what is left of it, " + lockName + " too, to begin anew"}
		}
	}
	return nil
}

// logbook keeps logsName up to date while the store is open.
type logbook struct {
	fs     vfs.FS
	dir    string
	logger *slog.Logger

	// mu is held across I/O: the file has one writer at a time. Nobody
	// who reads waits for it.
	mu      sync.Mutex
	sizes   logSizes    // guarded by mu
	stale   bool        // what is on disk is something else; guarded by mu
	current *writtenLog // nil: none yet; guarded by mu

	complaints complaints
}

// writtenLog counts what is written to a log.
type writtenLog struct {
	name    string
	written atomic.Int64
	synced  atomic.Int64
	// whole is as much of synced as ends with a write that was acknowledged, or
	// is about to be.
	whole atomic.Int64
}

// openLogbook checks the logs before Pebble opens them.
func openLogbook(fsys vfs.FS, dir string, logger *slog.Logger) (*logbook, error) {
	l := &logbook{fs: fsys, dir: dir, logger: logger, sizes: make(logSizes)}
	if err := checkMissing(fsys, dir); err != nil {
		return nil, err
	}
	needed, damaged, err := checkLogs(fsys, dir)
	switch {
	case errors.Is(err, errSum):
		logger.Warn("store: the note about the logs of writes is damaged; it is written anew", "file", fsys.PathJoin(dir, logsName))
		return l, nil
	case err != nil:
		return nil, err
	case len(damaged) > 0:
		return nil, damaged[0]
	}
	maps.Copy(l.sizes, needed)
	return l, nil
}

// owns reports whether path is of a log in the directory itself. A backup
// copies logs to other places.
func (l *logbook) owns(path string) bool {
	return l != nil && kindOf(l.fs.PathBase(path)) == fileLog && l.fs.PathDir(path) == l.dir
}

// began notes a log that was made and is empty. Its name is on disk before the
// note of it.
func (l *logbook) began(path string) (*writtenLog, error) {
	if err := syncDir(l.fs, l.dir); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current = &writtenLog{name: l.fs.PathBase(path)}
	l.sizes[l.current.name] = 0
	l.saveLocked()
	return l.current, nil
}

// ended forgets a log that is about to be removed, or to be made another one.
// The note on disk need not change: the manifest says that the log is not needed.
func (l *logbook) ended(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.sizes, l.fs.PathBase(path))
}

// committed is called by the committer between the sync of a batch and its
// acknowledgement. Now and then it writes, so that for every log half of what was
// acknowledged is noted, and more when the store rests ([logbook.note]).
func (l *logbook) committed() {
	if fault.Broken(fault.SyncNothing) {
		return // what the disk says it has is not there
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.current
	if c == nil {
		return
	}
	whole := c.synced.Load()
	c.whole.Store(whole)
	if noted := l.sizes[c.name]; l.stale || whole > noted && whole >= 2*noted {
		l.sizes[c.name] = whole
		l.saveLocked()
	}
}

// note covers all that was acknowledged.
func (l *logbook) note() {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.current
	if c == nil {
		return
	}
	if whole := c.whole.Load(); l.stale || whole > l.sizes[c.name] {
		l.sizes[c.name] = whole
		l.saveLocked()
	}
}

// saveLocked writes the note. That it cannot is no failure of the store: what was
// noted before stays true. It is tried again with the next batch.
func (l *logbook) saveLocked() {
	err := writeNote(l.fs, l.dir, logsName, l.sizes.text())
	l.stale = err != nil
	if err != nil {
		l.complaints.report(func(times int) {
			l.logger.Warn("store: the logs of writes could not be noted; until they are, the loss of one may go unnoticed",
				"file", l.fs.PathJoin(l.dir, logsName), "error", err, "times", times)
		})
	}
}

// noteCopy notes the logs of a copy, of which nobody wrote down anything.
func noteCopy(fsys vfs.FS, dir string) error {
	names, err := fsys.List(dir)
	if err != nil || slices.Contains(names, logsName) {
		return err
	}
	sizes := make(logSizes)
	for _, name := range names {
		number, ok := logNumber(name)
		if !ok {
			continue
		}
		f, err := fsys.Open(fsys.PathJoin(dir, name))
		if err != nil {
			return err
		}
		sizes[name], _ = readRecords(f, number)
		if err := f.Close(); err != nil {
			return err
		}
	}
	return writeNote(fsys, dir, logsName, sizes.text())
}

// eachRecord calls f with every whole record. See readRecords.
func eachRecord(data io.Reader, number uint64, f func([]byte)) (at int64, err error) {
	var b bytes.Buffer
	return walkRecords(data, number, func(r io.Reader) error {
		b.Reset()
		_, err := io.Copy(&b, r)
		if err == nil {
			f(b.Bytes())
		}
		return err
	})
}
