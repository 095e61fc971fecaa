package pebble

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	db "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Kinds of files, by name.
type fileKind int

const (
	fileOther fileKind = iota
	fileManifest
	fileLog
	fileTable
)

func kindOf(name string) fileKind {
	switch {
	case strings.HasPrefix(name, "MANIFEST-"):
		return fileManifest
	case strings.HasSuffix(name, ".log"):
		return fileLog
	case strings.HasSuffix(name, ".sst"):
		return fileTable
	}
	return fileOther
}

// checkManifest reads the list of tables to its end. Pebble takes a record of
// it that is not whole for its end, and forgets the tables named after it
// without a word.
func (c *checker) checkManifest() {
	if err := checkSum(c.fs, c.dir); errors.Is(err, errSum) {
		c.found(Problem{File: sumName, Detail: "not as it was written: it is written anew when the directory is opened"})
	} else if damaged := (*damagedFileError)(nil); errors.As(err, &damaged) {
		c.found(Problem{File: damaged.name, Detail: damaged.detail})
	}
	desc, err := db.Peek(c.dir, c.fs)
	if err != nil || !desc.Exists {
		return // Open says so
	}
	name := c.fs.PathBase(desc.ManifestFilename)
	data, err := readWhole(c.fs, desc.ManifestFilename)
	if err != nil {
		c.found(Problem{File: name, Detail: err.Error()})
		return
	}
	if at, err := readRecords(bytes.NewReader(data), 0); err != nil {
		c.found(Problem{File: name, Detail: fmt.Sprintf("not whole from byte %d of %d on (%v): tables listed there are forgotten when the directory is opened. "+
			"If the machine lost power in the moment the list was written, nothing is missing", at, len(data), err)})
	}
}

// readRecords reads records to the end of data. The error says why it could
// not, and `at` where the last whole record ends.
func readRecords(data io.Reader, number uint64) (at int64, err error) {
	return walkRecords(data, number, func(r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	})
}

func walkRecords(data io.Reader, number uint64, read func(io.Reader) error) (at int64, err error) {
	log := db.SSTableInfo{}.BackingSSTNum // of a type that has no name here
	setNumber(&log, number)
	r := record.NewReader(data, log)
	for {
		at = r.Offset()
		next, err := r.Next()
		if err == nil {
			err = read(next)
		}
		if errors.Is(err, io.EOF) {
			return at, nil
		}
		if err != nil {
			return at, err
		}
	}
}

func setNumber[T ~uint64](to *T, n uint64) { *to = T(n) }

// checkLogFiles looks for the logs that must be there, with all that must be in
// them. It returns those that are damaged.
func (c *checker) checkLogFiles() map[string]bool {
	bad := make(map[string]bool)
	_, damaged, err := checkLogs(c.fs, c.dir)
	if errors.Is(err, errSum) {
		c.found(Problem{File: logsName, Detail: "not as it was written: it is written anew when the directory is opened"})
	} else if err != nil {
		c.found(Problem{File: logsName, Detail: firstLine(err)})
	}
	for _, d := range damaged {
		bad[d.name] = true
		c.found(Problem{File: d.name, Detail: d.detail})
	}
	return bad
}

// checkLogEnd looks at the end of the newest log of writes.
func (c *checker) checkLogEnd(bad map[string]bool) {
	e, err := readLogEnd(c.fs, c.dir)
	switch {
	case err != nil:
		c.found(Problem{File: e.name, Detail: err.Error()})
	case e.name == "":
		if noted, err := readLogs(c.fs, c.dir); noted == nil && err == nil {
			c.note("there is no log of writes, which there is in the directory of every server that has started; whether there was one is not known, because the release that wrote this directory did not note it")
		}
	case bad[e.name]:
	case e.damaged():
		c.found(Problem{File: e.name, Detail: e.damage()})
	case e.left > 0:
		c.note("%s: the last %d bytes are no whole record. That is what a write that was cut off by a crash looks like, "+
			"and damage of the last acknowledged events looks the same: the two cannot be told apart", e.name, e.left)
	case !e.closed:
		c.note("%s: it ends without the mark of a log that was closed: its server was killed, or lost power, or this is a copy of a live one. "+
			"What is there is whole; whether the file has been cut short since cannot be told", e.name)
	}
}

// logEnd is the end of the newest log of writes. Pebble reports damage
// elsewhere in the logs when it opens them, and takes the first record at the
// end that is not whole for a write that was cut off, and what follows for
// nothing.
type logEnd struct {
	name   string // empty: there is no log
	at     int64  // where the last whole record ends
	left   int    // how many bytes follow that are no record
	later  int64  // where it is proven that these are damaged, if they are
	closed bool   // the log ends with the mark
}

func readLogEnd(fsys vfs.FS, dir string) (e logEnd, err error) {
	var number uint64
	if e.name, number = newestLog(fsys, dir); e.name == "" {
		return e, nil
	}
	f, err := fsys.Open(fsys.PathJoin(dir, e.name))
	if err != nil {
		return e, err
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return e, err
	}
	at, torn := readRecords(f, number)
	e.at = min(at, info.Size())
	left := info.Size() - e.at
	if torn == nil {
		// A log that took the place of an older one has tens of megabytes of that
		// behind its records, which every start would read.
		left = min(left, 2*chunkHeader)
	}
	rest := make([]byte, left)
	n, err := f.ReadAt(rest, e.at)
	if err != nil && !errors.Is(err, io.EOF) {
		return e, err
	}
	rest = rest[:n]
	if torn == nil {
		e.closed = closed(rest, at, uint32(number))
		return e, nil
	}
	e.left = len(rest)
	if later, ok := provesDamage(rest, at, uint32(number)); ok {
		e.later = at + int64(later)
	}
	return e, nil
}

func (e logEnd) damaged() bool { return e.later > 0 }

func (e logEnd) damage() string {
	return fmt.Sprintf("damaged at byte %d: what was written later, at byte %d, says that everything before it was on disk, so acknowledged events are damaged. "+
		"Restore the directory from a backup; or cut the file to its first %d bytes and remove %s to open what is left", e.at, e.later, e.at, logsName)
}

// checkLog refuses a directory whose newest log is proven to be damaged: opened,
// it would lose the events there, and every trace of that.
func checkLog(fsys vfs.FS, dir string) error {
	e, err := readLogEnd(fsys, dir)
	if err != nil {
		return readError(err)
	}
	if e.damaged() {
		return &damagedFileError{e.name, e.damage()}
	}
	return nil
}

// closed reports whether rest, which is behind the last record of a log, begins
// with the mark that closing a log writes.
func closed(rest []byte, at int64, number uint32) bool {
	if left := int(logBlock - at%logBlock); left < chunkHeader {
		rest = rest[min(left, len(rest)):]
	}
	return isMark(rest, number)
}

// isMark reports whether b begins with the mark at the end of a closed log:
// a header alone, of the next log's number, with no checksum.
func isMark(b []byte, number uint32) bool {
	return len(b) >= chunkHeader && binary.LittleEndian.Uint32(b) == 0 && binary.LittleEndian.Uint16(b[chunkLength:]) == 0 &&
		b[chunkKind] == markKind && binary.LittleEndian.Uint32(b[chunkLog:]) == number+1
}

func newestLog(fsys vfs.FS, dir string) (name string, number uint64) {
	names, err := fsys.List(dir)
	if err != nil {
		return "", 0
	}
	for _, n := range names {
		if i, ok := logNumber(n); ok && i >= number {
			name, number = n, i
		}
	}
	return name, number
}

// The header of a chunk of Pebble's log, little-endian: checksum of all that
// follows (4 bytes), length (2), kind (1), log number (4), and, in the newest
// kinds, up to which offset the log was synced when it was written (8).
const (
	chunkLength     = 4
	chunkKind       = 6
	chunkLog        = 7
	chunkHeader     = 11
	chunkSyncHeader = 19
	markKind        = 5
	firstSyncKind   = 9
	lastSyncKind    = 12
	logBlock        = 32 << 10 // no chunk crosses the border of two blocks
)

// provesDamage looks, in the part of a log from offset `at` on, which begins
// with a record that is not whole, for a whole chunk that could only be written
// after what is not was synced: one that says so, or the mark that a closed log
// ends with.
func provesDamage(rest []byte, at int64, number uint32) (later int, ok bool) {
	broken := firstBroken(rest, at)
	// Only a chunk of this log counts. Its number is looked for first: what
	// follows the records of a log that took the place of an older one is tens
	// of megabytes of that, at every start.
	log := binary.LittleEndian.AppendUint32(nil, number)
	for i := broken + 1; i+chunkLog < len(rest); i++ {
		n := bytes.Index(rest[i+chunkLog:], log)
		if n < 0 {
			break
		}
		i += n
		if c, whole := chunkAt(rest[i:]); whole && c.synced > uint64(at)+uint64(broken) {
			return i, true
		}
	}
	// The mark has no checksum, so it counts only where a log ends.
	if i := len(rest) - chunkHeader; i > broken && isMark(rest[i:], number) {
		return i, true
	}
	return 0, false
}

// firstBroken returns where in rest the first chunk begins that is not whole.
func firstBroken(rest []byte, at int64) int {
	i := 0
	for i < len(rest) {
		c, whole := chunkAt(rest[i:])
		left := logBlock - int((at+int64(i))%logBlock)
		switch {
		case whole:
			i += c.size
		case left < chunkSyncHeader: // no chunk fits in there
			i += left
		default:
			return i
		}
	}
	return len(rest)
}

// chunk is what a chunk's header says.
type chunk struct {
	size   int // with the header
	log    uint32
	synced uint64
}

// chunkAt returns the chunk that b begins with, if its checksum is right.
func chunkAt(b []byte) (c chunk, whole bool) {
	if len(b) < chunkHeader || b[chunkKind] == 0 || b[chunkKind] > lastSyncKind {
		return chunk{}, false
	}
	c = chunk{size: chunkHeader, log: binary.LittleEndian.Uint32(b[chunkLog:])}
	if b[chunkKind] >= firstSyncKind {
		c.size = chunkSyncHeader
	}
	c.size += int(binary.LittleEndian.Uint16(b[chunkLength:]))
	if len(b) < c.size || b[chunkKind] >= firstSyncKind && c.size < chunkSyncHeader {
		return chunk{}, false
	}
	if b[chunkKind] >= firstSyncKind {
		c.synced = binary.LittleEndian.Uint64(b[chunkHeader:])
	}
	sum := crc32.Checksum(b[chunkKind:c.size], castagnoli)
	return c, binary.LittleEndian.Uint32(b) == masked(sum)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
