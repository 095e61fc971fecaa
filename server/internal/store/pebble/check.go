package pebble

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"

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
	onDisk := o.FS == nil
	if onDisk {
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
		onDisk: onDisk, ctx: ctx, fs: untouched{o.FS}, dir: dir, progress: o.Progress, blocks: new(blocks),
		report: &Report{Problems: []Problem{}, Notes: []string{}}, losses: make(map[string]*loss),
	}
	err := c.run()
	c.tell()
	return *c.report, err
}

// checker is one check.
type checker struct {
	ctx      context.Context
	fs       vfs.FS
	onDisk   bool // fs is the disk, and the directory nobody's who called
	dir      string
	progress func(Report)

	db     *db.DB
	report *Report
	steps  uint64
	blocks *blocks

	losses map[string]*loss // by cause: what cannot be read
	unread int              // how often that was met
	// trusted is what unread was before the record under check: if it has risen
	// since, what the record is compared with could not be read, and that they
	// disagree means nothing.
	trusted int

	// What rooms are there, for what refers to them.
	rooms    map[string]*checkedRoom
	numbers  map[uint64]*checkedRoom
	whole    bool   // all rooms could be read
	lastRoom uint64 // the greatest there is if it could not be read
	version  uint64
	format   uint64
	// counts has what the memberships of each user come to, and given the open
	// invitations by user invited and user who did.
	counts map[string]*userCounts
	given  map[string]uint64
}

func (c *checker) run() (err error) {
	if err := c.isStore(); err != nil {
		return err
	}
	lock, err := c.lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if damaged := (*damagedFileError)(nil); errors.As(checkMissing(c.fs, c.dir), &damaged) {
		c.found(Problem{File: damaged.name, Detail: damaged.detail})
		return nil
	}
	c.checkManifest()
	c.checkLogEnd(c.checkLogFiles())
	if !c.open() {
		return nil
	}
	defer func() { err = errors.Join(err, c.db.Close()) }()
	for _, part := range []func() error{
		c.checkTables, c.checkCounters, c.checkRooms, c.checkStrays, c.checkUsers, c.checkEnded, c.checkCounts,
		c.checkInvited, c.checkGiven, c.checkEmpty, c.checkSessions, c.checkPositions,
	} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// lock keeps servers away while the directory is read, without changing it.
func (c *checker) lock() (io.Closer, error) {
	if !c.onDisk {
		return lockDir(c.fs, c.dir)
	}
	lock, known, err := shareDir(c.dir)
	if err == nil && !known {
		c.note("whether a server uses the directory cannot be told: its file %s cannot be opened. If one does, what is found here may be of no account", lockName)
	}
	return lock, err
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
		if info, err := c.fs.Stat(c.fs.PathJoin(c.dir, name)); name == lockName && err == nil && info.Size() > 0 {
			return nil // there was one
		}
	}
	return fmt.Errorf("store: %s is no data directory: there is neither a manifest nor a log nor a table in it", c.dir)
}

// open opens the database for reading; that it cannot be opened is a finding.
func (c *checker) open() (ok bool) {
	opened, err := db.Open(c.dir, &db.Options{
		FS:                 blocksFS{lockedFS{c.fs}, c.blocks},
		Logger:             quiet{},
		FormatMajorVersion: db.FormatNewest,
		CacheSize:          defaultCacheBytes,
		ReadOnly:           true,
		ErrorIfNotExists:   true,
		// The default ends the process.
		EventListener: &db.EventListener{DataCorruption: func(db.DataCorruptionInfo) {}},
	})
	if err != nil {
		c.found(Problem{Detail: "the directory does not open: " + firstLine(err)})
		return false
	}
	c.db = opened
	return true
}

// found notes what is wrong, unless it may follow from what cannot be read.
func (c *checker) found(p Problem) {
	if c.unread == c.trusted && c.count() {
		c.report.Problems = append(c.report.Problems, p)
	}
}

// count counts a finding, and reports whether it can be told.
func (c *checker) count() bool {
	c.report.Found++
	return len(c.report.Problems) < MaxProblems
}

// begin is called before a record, or a few that belong together, are checked.
func (c *checker) begin() { c.trusted = c.unread }

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
// read is a finding, after which the rest of them is not known; whole is false.
// what says what they are.
func (c *checker) scan(prefix []byte, what string, f func(key, value []byte)) (whole bool, err error) {
	err = scan(c.db, prefix, prefixEnd(prefix), func(key, value []byte) (bool, error) {
		c.begin()
		f(key, value)
		return true, c.step()
	})
	if c.ctx.Err() != nil {
		return false, c.ctx.Err()
	}
	if err != nil {
		c.lost(err, someOf+what, false)
	}
	c.begin()
	return err == nil, nil
}

// value returns the value of a key; what cannot be read is a finding, and not
// there. It then depends on [checker.found] that nothing is made of that.
func (c *checker) value(key []byte) (value []byte, ok bool) {
	value, ok, err := get(c.db, key)
	if err != nil {
		c.lost(err, c.describe(key), true)
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
	c.begin()
	format, ok := c.number(keyFormat)
	switch {
	case !ok:
		c.bad(keyFormat, "the format of the store is missing")
	case format > formatVersion:
		return fmt.Errorf("store: %s has format %d, and this release knows up to %d: check it with the release that wrote it", c.dir, format, formatVersion)
	}
	c.format = format
	c.lastRoom, c.version = c.counter(keyLastRoom), c.counter(keyVersion)
	return nil
}

// counter returns the number under a key, 0 if there is none, and the greatest
// there is if that cannot be told.
func (c *checker) counter(key []byte) uint64 {
	c.begin()
	if n, _ := c.number(key); c.unread == c.trusted {
		return n
	}
	return math.MaxUint64
}

// kinds are the first bytes of all keys there are.
var kinds = []byte{
	prefixStore, prefixClientID, prefixEnded, prefixEvent, prefixGiven, prefixStretch, prefixInvited, prefixInvitee,
	prefixMember, prefixCounts, prefixPosition, prefixRoom, prefixSession, prefixTail, prefixUserRoom, prefixSessions, prefixEmpty,
}

// errReadOnly is what untouched answers to whatever would change the directory.
var errReadOnly = fmt.Errorf("store: a check changes nothing: %w", fs.ErrPermission)

// quiet is a log for nobody: what matters comes back as an error.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}

// Fatalf is for failed writes, of which there are none.
func (quiet) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }
