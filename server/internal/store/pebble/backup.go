package pebble

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"regexp"
	"sync/atomic"

	db "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reprise-chat/reprise/server/internal/fault"
)

// A live copy is made in two steps: links within the data directory, by
// name of this prefix, and then a copy of what they link to.
const linksPrefix = "backup-"

// backups numbers the backups of this process.
var backups atomic.Uint64

// Backup copies the store as it is at one moment to dest, which must not exist
// and may be on another disk. Everything acknowledged before the call is in it.
// Writes wait while the tables are linked and the log is copied, which takes
// milliseconds, not while the tables are copied. The copy is complete, synced
// and checked, or it is not there; half of one is left as dest.partial only by
// a crash, and is refused wherever a data directory is asked for.
//
// Opened, the copy is a log of its own: it appends under an incarnation of its
// own, and whoever holds more than it has is rewound.
func (s *Store) Backup(ctx context.Context, dest string) error {
	fsys := s.opts.fs()
	links := fsys.PathJoin(s.dir, fmt.Sprintf("%s%s-%d", linksPrefix, s.incarnation, backups.Add(1)))
	err := s.link(ctx, links)
	if err == nil {
		err = copyStore(ctx, fsys, links, dest)
	}
	return errors.Join(err, fsys.RemoveAll(links))
}

// link makes the first step of a live copy. It returns when nothing writes to
// links any more, also if ctx ends, so that they can be removed. That is soon:
// the committer skips what nobody wants any more when it comes to it.
func (s *Store) link(ctx context.Context, links string) error {
	o := &checkpoint{awaited: newAwaited(), dir: links, ended: ctx.Err}
	err := s.do(context.WithoutCancel(ctx), o, o.awaited)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("store: backup: %w", err)
	}
	return nil
}

// linksName is the name of such a directory: an operator's own may begin like it.
var linksName = regexp.MustCompile(`^` + linksPrefix + `i_[a-z2-7]{13}-[0-9]+$`)

// removeLinks removes what backups left that were interrupted by the end of
// their process. It is called before this store makes any.
func (s *Store) removeLinks() {
	fsys := s.opts.fs()
	names, err := fsys.List(s.dir)
	if err != nil {
		s.logger.Warn("store: what an interrupted backup may have left was not looked for", "error", err)
		return
	}
	for _, name := range names {
		path := fsys.PathJoin(s.dir, name)
		if !linksName.MatchString(name) || !s.home.isDir(fsys, path) {
			continue
		}
		if err := fsys.RemoveAll(path); err != nil {
			s.logger.Warn("store: what an interrupted backup left takes space", "path", path, "error", err)
		}
	}
}

// checkpoint is the part of a backup that is a turn of the committer: while the
// log is copied nobody writes to it. Otherwise the copy could hold a later part
// of the log and not an earlier one, which looks like damage.
type checkpoint struct {
	awaited
	dir   string
	ended func() error // why nobody waits for it any more, or nil
}

func (o *checkpoint) cost() (events, bytes int) { return 1, 0 }

func (o *checkpoint) apply(b *batch) error {
	if err := o.ended(); err != nil {
		return err
	}
	if err := b.c.s.db.Checkpoint(o.dir, db.WithFlushedWAL()); err != nil {
		return err
	}
	return b.c.s.failedError() // Pebble tells a failed sync to its logger only
}

// Backup copies the data directory of a stopped server, like [Store.Backup] does of a live one.
// The error wraps store.ErrLocked if a server has it open.
func Backup(ctx context.Context, dir, dest string) error {
	fsys := vfs.Default
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return fmt.Errorf("store: data directory: %w", err)
	}
	c := &checker{fs: fsys, dir: dir}
	if err := c.isStore(); err != nil {
		return err
	}
	lock, _, err := shareDir(dir)
	if err != nil {
		return err
	}
	// Nobody writes, so the files as they are are the copy.
	return errors.Join(copyStore(ctx, fsys, dir, dest), lock.Close())
}

// copyStore copies the files of a directory that nobody writes to, checks the
// copy and gives it its name.
func copyStore(ctx context.Context, fsys vfs.FS, from, dest string) (err error) {
	partial := dest + ".partial"
	for _, name := range []string{dest, partial} {
		if _, err := fsys.Stat(name); err == nil {
			return fmt.Errorf("store: backup: %s exists: remove it, or choose another name: %w", name, fs.ErrExist)
		}
	}
	if err := mkdirDurable(fsys, partial); err != nil {
		return fmt.Errorf("store: backup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("store: backup: %w", err), fsys.RemoveAll(partial))
		}
	}()
	if err := copyFiles(ctx, fsys, from, partial); err != nil {
		return err
	}
	if _, err := openLedger(fsys, partial, slog.New(slog.DiscardHandler)); err != nil { // damage on the way shows
		return err
	}
	if err := noteCopy(fsys, partial); err != nil {
		return err
	}
	report, err := Check(ctx, partial, CheckOptions{FS: fsys})
	if err != nil {
		return err
	}
	if report.Damaged() {
		return fmt.Errorf("the copy is damaged, and so may be what was copied: %v", report.Problems[0])
	}
	if err := fsys.Rename(partial, dest); err != nil {
		return err
	}
	return syncDir(fsys, fsys.PathDir(dest))
}

// unfinishedName is the file that a copy has for as long as it lacks others.
// Pebble cannot tell: a part of a store, without its newest log say, opens like
// an older one, and without its manifest like a new one.
const unfinishedName = "UNFINISHED-BACKUP"

// errUnfinished: the directory is a part of a copy.
var errUnfinished = errors.New("a backup that was never finished, because the process or the machine ended: remove it and make another one")

func refuseUnfinished(fsys vfs.FS, dir string) error {
	if _, err := fsys.Stat(fsys.PathJoin(dir, unfinishedName)); err == nil {
		return fmt.Errorf("store: %s is %w", dir, errUnfinished)
	}
	return nil
}

// copyFiles copies the files of a directory. Until all are there, and durable,
// the copy is marked as unfinished.
func copyFiles(ctx context.Context, fsys vfs.FS, from, to string) error {
	names, err := fsys.List(from)
	if err != nil {
		return err
	}
	mark := fsys.PathJoin(to, unfinishedName)
	f, err := fsys.Create(mark, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Close(), syncDir(fsys, to)); err != nil {
		return err
	}
	for _, name := range names {
		fault.Point(fault.BackingUp)
		source := fsys.PathJoin(from, name)
		info, err := fsys.Stat(source)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() || name == lockName {
			continue
		}
		if err := errors.Join(ctx.Err(), vfs.Copy(fsys, source, fsys.PathJoin(to, name))); err != nil {
			return err
		}
	}
	if err := syncDir(fsys, to); err != nil {
		return err
	}
	return errors.Join(fsys.Remove(mark), syncDir(fsys, to))
}

// lockName is the file by which Pebble locks a directory.
const lockName = "LOCK"
