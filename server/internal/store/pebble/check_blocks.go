package pebble

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"sync"

	db "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// loss is one cause for which something cannot be read: a block of a table,
// or what the disk says. It is one finding, whatever lies in it.
type loss struct {
	at     int    // index in Report.Problems; -1: there was no more room
	covers []part // in the order in which they were met
	more   int    // that were met and are not in covers
}

// part is something that a loss covers: a range, or things that are counted.
type part struct {
	what  string
	times int // 0: a range
}

// maxParts bounds what is told of one loss.
const maxParts = 20

// someOf is in front of things of which it is not known how many.
const someOf = "some of "

// cover adds to what is lost.
func (d *loss) cover(what string, counted bool) {
	for i := range d.covers {
		p := &d.covers[i]
		if p.what == what && counted {
			p.times++
		}
		if p.what == what || someOf+p.what == what {
			return
		}
	}
	if len(d.covers) == maxParts {
		d.more++
		return
	}
	p := part{what: what}
	if counted {
		p.times = 1
	}
	d.covers = append(d.covers, p)
}

func (d *loss) String() string {
	var parts []string
	for _, p := range d.covers {
		if p.times > 0 {
			p.what = fmt.Sprintf("%d of %s", p.times, p.what)
		}
		parts = append(parts, p.what)
	}
	if d.more > 0 {
		parts = append(parts, fmt.Sprintf("%d more", d.more))
	}
	if len(parts) == 0 {
		return "; nothing that was looked for lies in it"
	}
	return "; it covers " + strings.Join(parts, ", ")
}

// lost notes that something cannot be read, for the reason that err says.
func (c *checker) lost(err error, what string, counted bool) {
	c.unread++
	var bad *blockError
	key := firstLine(err)
	p := Problem{Detail: key}
	if errors.As(err, &bad) {
		key = bad.Error()
		p = Problem{File: bad.file, Detail: bad.detail()}
	}
	d := c.losses[key]
	if d == nil {
		d = &loss{at: -1}
		if c.count() {
			d.at = len(c.report.Problems)
			c.report.Problems = append(c.report.Problems, p)
		}
		c.losses[key] = d
	}
	if what != "" {
		d.cover(what, counted)
	}
}

// tell completes the findings of what cannot be read with what lies there.
func (c *checker) tell() {
	for _, d := range c.losses {
		if d.at >= 0 {
			c.report.Problems[d.at].Detail += d.String()
		}
	}
}

// kindNames says what the records of a kind are.
var kindNames = map[byte]string{
	prefixStore: "the records of the store itself", prefixClientID: "the client ids", prefixEvent: "the events",
	prefixStretch: "the stretches", prefixMember: "the members", prefixPosition: "the positions", prefixRoom: "the rooms",
	prefixSession: "the sessions", prefixTail: "the tails", prefixUserRoom: "the rooms of users", prefixSessions: "the sessions by user",
	prefixEnded: "the ended memberships of users", prefixCounts: "the counts of users", prefixInvitee: "the invitations",
	prefixInvited: "the invitations of users", prefixGiven: "the counts of invitations", prefixEmpty: "the rooms without members",
}

// describe says what lies at a key.
func (c *checker) describe(key []byte) string {
	what := kindNames[key[0]]
	switch key[0] {
	case prefixClientID, prefixEvent, prefixStretch, prefixMember, prefixInvitee, prefixTail:
		if len(key) >= 9 {
			if r := c.numbers[binary.BigEndian.Uint64(key[1:])]; r != nil {
				what += fmt.Sprintf(" of room %q", r.name)
			}
		}
	}
	return what
}

// blockError says that a block of a table is not as it was written.
type blockError struct {
	file     string
	at, size int64
	kind     string
}

func (e *blockError) Error() string { return e.file + ": " + e.detail() }

func (e *blockError) detail() string {
	return fmt.Sprintf("the %s of %d bytes at byte %d is not as it was written: its checksum is wrong", e.kind, e.size, e.at)
}

// blocks are the damaged blocks of the tables. Pebble looks for the flipped bit
// whenever it meets such a block, which takes a second each time, so it is kept
// from reading them.
type blocks struct {
	mu  sync.Mutex
	bad map[string][]*blockError // by file
}

func (b *blocks) add(e *blockError) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bad == nil {
		b.bad = make(map[string][]*blockError)
	}
	b.bad[e.file] = append(b.bad[e.file], e)
}

// in returns the first damaged block of a file that is in [from, to).
func (b *blocks) in(file string, from, to int64) *blockError {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.bad[file] {
		if from < e.at+e.size && e.at < to {
			return e
		}
	}
	return nil
}

// blocksFS is a file system on which damaged blocks cannot be read.
type blocksFS struct {
	vfs.FS
	blocks *blocks
}

func (fs blocksFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.Open(name, opts...)
	if base := fs.PathBase(name); err == nil && kindOf(base) == fileTable {
		return blocksFile{f, base, fs.blocks}, nil
	}
	return f, err
}

type blocksFile struct {
	vfs.File
	name   string
	blocks *blocks
}

func (f blocksFile) ReadAt(p []byte, off int64) (int, error) {
	if e := f.blocks.in(f.name, off, off+int64(len(p))); e != nil {
		return 0, e
	}
	return f.File.ReadAt(p, off)
}

// blockTrailer follows a block: its kind, 1 byte, and a checksum of both.
const blockTrailer = 5

// checkTables compares every block of every table with its checksum. Reading
// the records would not meet the filters, nor what compactions have hidden.
func (c *checker) checkTables() error {
	levels, err := c.db.SSTables()
	if err != nil {
		c.found(Problem{Detail: "the tables are not known: " + err.Error()})
		return nil
	}
	seen := make(map[uint64]bool) // several tables may be parts of one file
	for _, level := range levels {
		for _, table := range level {
			number := uint64(table.BackingSSTNum)
			if seen[number] {
				continue
			}
			seen[number] = true
			if err := c.ctx.Err(); err != nil {
				return err
			}
			name := fmt.Sprintf("%06d.sst", number)
			if err := c.checkTable(name); err != nil {
				c.found(Problem{File: name, Detail: err.Error()})
			}
			c.report.Tables++
			if c.progress != nil {
				c.progress(*c.report)
			}
		}
	}
	return nil
}

// checkTable reads the blocks of a table. The error is of the disk.
func (c *checker) checkTable(name string) error {
	f, err := c.fs.Open(c.fs.PathJoin(c.dir, name), vfs.SequentialReadsOption)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	layout, err := tableLayout(f)
	if err != nil {
		c.badBlock(&blockError{name, 0, info.Size(), "table"})
		return f.Close()
	}
	for _, b := range layout {
		buf := make([]byte, b.Length+blockTrailer)
		if _, err := f.ReadAt(buf, int64(b.Offset)); err != nil && !errors.Is(err, io.EOF) {
			return errors.Join(err, f.Close())
		}
		data, want := buf[:b.Length+1], binary.LittleEndian.Uint32(buf[b.Length+1:])
		if masked(crc32.Checksum(data, castagnoli)) != want {
			c.badBlock(&blockError{name, int64(b.Offset), int64(len(buf)), "block"})
		}
	}
	return f.Close()
}

// badBlock is a finding, and keeps the block from being read.
func (c *checker) badBlock(e *blockError) {
	c.blocks.add(e)
	c.lost(e, "", false)
}

// masked is how Pebble writes a checksum.
func masked(sum uint32) uint32 { return (sum>>15 | sum<<17) + 0xa282ead8 }

// tableLayout returns where the blocks of a table are, in the order of the file.
// It does not close f.
func tableLayout(f vfs.File) ([]block.Handle, error) {
	readable, err := sstable.NewSimpleReadable(unclosed{f})
	if err != nil {
		return nil, err
	}
	var o db.Options
	o.EnsureDefaults()
	r, err := sstable.NewReader(context.Background(), readable, o.MakeReaderOptions())
	if err != nil {
		return nil, errors.Join(err, readable.Close())
	}
	l, err := r.Layout()
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	all := append([]block.Handle{l.TopIndex, l.RangeDel, l.RangeKey, l.ValueIndex, l.Properties, l.MetaIndex, l.BlobReferenceIndex}, l.Index...)
	all = append(all, l.ValueBlock...)
	for _, b := range l.Data {
		all = append(all, b.Handle)
	}
	for _, b := range l.Filter {
		all = append(all, b.Handle)
	}
	all = slices.DeleteFunc(all, func(b block.Handle) bool { return b.Length == 0 })
	slices.SortFunc(all, func(a, b block.Handle) int { return cmp.Compare(a.Offset, b.Offset) })
	return slices.Compact(all), nil
}

// unclosed is a file that stays open.
type unclosed struct{ vfs.File }

func (unclosed) Close() error { return nil }
