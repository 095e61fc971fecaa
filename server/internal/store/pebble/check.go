package pebble

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	db "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Report is what a check of a data directory found.
type Report struct {
	// What was read.
	Tables    int    `json:"tables"`
	Rooms     uint64 `json:"rooms"`
	Events    uint64 `json:"events"`
	Bytes     uint64 `json:"event_bytes"` // of encoded events
	Members   uint64 `json:"members"`
	ClientIDs uint64 `json:"client_ids"`
	Sessions  uint64 `json:"sessions"`
	Positions uint64 `json:"positions"`

	// Found counts what is wrong; Problems has the first [MaxProblems] of it.
	Found    uint64    `json:"found"`
	Problems []Problem `json:"problems"`
	// Notes are what an operator should know and what is no damage, or cannot
	// be told from none.
	Notes []string `json:"notes"`
}

// MaxProblems bounds what a Report names, so that one lost table does not fill
// the memory.
const MaxProblems = 1000

// Problem is something that is not as it was written.
type Problem struct {
	// Room and Offset say which event is concerned, File in which file of the
	// directory it is; each is empty if that is not known.
	Room   string `json:"room,omitempty"`
	Offset uint64 `json:"offset,omitempty"`
	File   string `json:"file,omitempty"`
	Detail string `json:"problem"`
}

// String returns the problem as a line.
func (p Problem) String() string {
	var where string
	if p.Room != "" {
		where = fmt.Sprintf("room %q: ", p.Room)
	}
	if p.Offset != 0 {
		where += fmt.Sprintf("offset %d: ", p.Offset)
	}
	if p.File != "" {
		where += p.File + ": "
	}
	return where + p.Detail
}

// Damaged reports whether anything is wrong.
func (r *Report) Damaged() bool { return r.Found > 0 }

// CheckOptions of a check. The zero value is for a directory on a disk.
type CheckOptions struct {
	// FS is the file system; nil is the disk.
	FS vfs.FS
	// Progress, if not nil, is called now and then with what has been read so
	// far, by the goroutine that called Check.
	Progress func(Report)
}

// Check reads everything in the data directory of a stopped server and reports
// what is not as it was written: blocks whose checksum is wrong, records that
// do not decode, and records that do not agree with each other. It changes
// nothing. The error wraps store.ErrLocked if a server has the directory
// open; another one means that the check could not be made.
//
// What it cannot see: damage in the last records of the newest log of writes
// looks like a write that the loss of power cut off, and is only noted.
func Check(ctx context.Context, dir string, o CheckOptions) (Report, error) {
	if o.FS == nil {
		o.FS = vfs.Default
		var err error
		// The lock is taken by name within a process.
		if dir, err = filepath.Abs(dir); err == nil {
			dir, err = filepath.EvalSymlinks(dir)
		}
		if err != nil {
			return Report{}, fmt.Errorf("store: data directory: %w", err)
		}
	}
	c := &checker{
		ctx: ctx, fs: untouched{o.FS}, dir: dir, progress: o.Progress,
		report: &Report{Problems: []Problem{}, Notes: []string{}}, causes: make(map[string]bool),
	}
	err := c.run()
	return *c.report, err
}

// checker is one check.
type checker struct {
	ctx      context.Context
	fs       vfs.FS
	dir      string
	progress func(Report)

	db     *db.DB
	report *Report
	steps  uint64
	causes map[string]bool // why something could not be read

	// What rooms are there, for what refers to them.
	rooms    map[string]*checkedRoom
	numbers  map[uint64]*checkedRoom
	lastRoom uint64
	version  uint64
}

func (c *checker) run() (err error) {
	if err := c.isStore(); err != nil {
		return err
	}
	lock, err := lockDir(c.fs, c.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	c.checkManifest()
	c.checkLogEnd(c.checkLogFiles())
	if !c.open() {
		return nil
	}
	defer func() { err = errors.Join(err, c.db.Close()) }()
	for _, part := range []func() error{
		c.checkTables, c.checkCounters, c.checkRooms, c.checkStrays, c.checkUsers, c.checkSessions, c.checkPositions,
	} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// isStore returns an error if the directory holds nothing of a store.
func (c *checker) isStore() error {
	names, err := c.fs.List(c.dir)
	if err != nil {
		return fmt.Errorf("store: data directory: %w", err)
	}
	for _, name := range names {
		switch kindOf(name) {
		case fileManifest, fileLog, fileTable:
			return nil
		}
	}
	return fmt.Errorf("store: %s is no data directory: there is neither a manifest nor a log nor a table in it", c.dir)
}

// open opens the database for reading; that it cannot be opened is a finding.
func (c *checker) open() (ok bool) {
	opened, err := db.Open(c.dir, &db.Options{
		FS:                 lockedFS{c.fs},
		Logger:             quiet{},
		FormatMajorVersion: db.FormatNewest,
		CacheSize:          defaultCacheBytes,
		ReadOnly:           true,
		ErrorIfNotExists:   true,
		// The default ends the process.
		EventListener: &db.EventListener{DataCorruption: func(db.DataCorruptionInfo) {}},
	})
	if err != nil {
		c.found(Problem{Detail: "the directory does not open: " + c.cause(err)})
		return false
	}
	c.db = opened
	return true
}

// found notes what is wrong.
func (c *checker) found(p Problem) {
	c.report.Found++
	if len(c.report.Problems) < MaxProblems {
		c.report.Problems = append(c.report.Problems, p)
	}
}

// bad notes a record that is wrong.
func (c *checker) bad(key []byte, format string, a ...any) {
	c.found(Problem{Detail: fmt.Sprintf("record %q: ", key) + fmt.Sprintf(format, a...)})
}

func (c *checker) note(format string, a ...any) {
	c.report.Notes = append(c.report.Notes, fmt.Sprintf(format, a...))
}

// progressEvery is how many records are read between two calls of Progress.
const progressEvery = 8192

// step counts a record that was read. It returns an error when the check is to
// end.
func (c *checker) step() error {
	if c.steps++; c.steps%progressEvery == 0 && c.progress != nil {
		c.progress(*c.report)
	}
	return c.ctx.Err()
}

// scan calls f with the pairs whose keys begin with prefix. What cannot be
// read is a finding, p with what is the matter behind its Detail, after which the
// rest of them is not known; whole is false.
func (c *checker) scan(prefix []byte, p Problem, f func(key, value []byte)) (whole bool, err error) {
	err = scan(c.db, prefix, prefixEnd(prefix), func(key, value []byte) (bool, error) {
		f(key, value)
		return true, c.step()
	})
	if c.ctx.Err() != nil {
		return false, c.ctx.Err()
	}
	if err != nil {
		p.Detail += " cannot be read: " + c.cause(err)
		c.found(p)
	}
	return err == nil, nil
}

// cause is firstLine, remembered.
func (c *checker) cause(err error) string {
	s := firstLine(err)
	c.causes[s] = true
	return s
}

// firstLine returns what an error of Pebble says to people: the lines below are
// for Pebble's own tools.
func firstLine(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	return s
}

// value returns the value of a key; what cannot be read is a finding, and not
// there.
func (c *checker) value(key []byte) (value []byte, ok bool) {
	value, ok, err := get(c.db, key)
	if err != nil {
		c.bad(key, "cannot be read: %s", c.cause(err))
	}
	return value, ok
}

// number returns the number stored under a key.
func (c *checker) number(key []byte) (n uint64, ok bool) {
	value, ok := c.value(key)
	if !ok {
		return 0, false
	}
	n, err := decodeUint64(value)
	if err != nil {
		c.bad(key, "%v", err)
	}
	return n, err == nil
}

// checkCounters reads the records of the store itself.
func (c *checker) checkCounters() error {
	format, ok := c.number(keyFormat)
	switch {
	case !ok:
		c.bad(keyFormat, "the format of the store is missing")
	case format > formatVersion:
		return fmt.Errorf("store: %s has format %d, and this release knows up to %d: check it with the release that wrote it", c.dir, format, formatVersion)
	}
	c.lastRoom, _ = c.number(keyLastRoom)
	c.version, _ = c.number(keyVersion)
	return nil
}

// kinds are the first bytes of all keys there are.
var kinds = []byte{
	prefixStore, prefixClientID, prefixEvent, prefixStretch, prefixMember, prefixPosition,
	prefixRoom, prefixSession, prefixTail, prefixUserRoom, prefixSessions,
}

// errReadOnly is what untouched answers to whatever would change the directory.
var errReadOnly = fmt.Errorf("store: a check changes nothing: %w", fs.ErrPermission)

// quiet is a log for nobody: what matters comes back as an error.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}

// Fatalf is for failed writes, of which there are none.
func (quiet) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }
