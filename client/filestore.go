package reprise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// fileVersion is the format of a position file. A file of a later release is
// refused rather than misread.
const fileVersion = 1

// FileStore keeps a session and its positions in a file, for one process at a
// time.
type FileStore struct {
	path string
	lock *os.File

	mu      sync.Mutex
	session SessionKey
	places  map[string]Place
	closed  bool
}

// fileContent is what a position file holds, as JSON.
type fileContent struct {
	Version int        `json:"version"`
	Session SessionKey `json:"session"`
	Places  []Place    `json:"places"`
}

// OpenFile opens or creates a position file (mode 0600: it holds the resume
// key) and locks it against other processes: ErrStoreLocked says that one has
// it. The lock is a file beside it, path + ".lock"; of a symbolic link, beside
// what it points to. The directory must exist. Close it after the Client.
func OpenFile(path string) (*FileStore, error) {
	file, err := target(path)
	if err != nil {
		return nil, fmt.Errorf("reprise: position file: %w", err)
	}
	lock, err := os.OpenFile(file+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("reprise: locking position file: %w", err)
	}
	if err := lockFile(lock); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%w: %s (end that process, or give this one a file of its own)", ErrStoreLocked, path)
	}
	f := &FileStore{path: file, lock: lock, places: map[string]Place{}}
	if err := f.read(); err != nil {
		lock.Close()
		return nil, err
	}
	return f, nil
}

// target returns the file that path is, or is a symbolic link to: a file is
// locked once, whatever it is called, and a link stays one.
func target(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	if to, err := os.Readlink(path); err == nil {
		return "", fmt.Errorf("%s is a symbolic link to %s, which does not exist", path, to)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	return filepath.Join(dir, filepath.Base(path)), err
}

func (f *FileStore) read() error {
	b, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reprise: reading position file: %w", err)
	}
	var c fileContent
	if err := json.Unmarshal(b, &c); err != nil {
		return fmt.Errorf("reprise: position file %s is damaged (%w): remove it to start a new session", f.path, err)
	}
	if c.Version != fileVersion {
		return fmt.Errorf("reprise: position file %s has version %d, this release knows %d", f.path, c.Version, fileVersion)
	}
	f.session = c.Session
	for _, p := range c.Places {
		f.places[p.Position.Room] = p
	}
	return nil
}

// Load implements [PositionStore].
func (f *FileStore) Load(context.Context) (Saved, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return Saved{}, fs.ErrClosed
	}
	return Saved{Session: f.session, Places: slices.Collect(maps.Values(f.places))}, nil
}

// Save implements [PositionStore]. When it returns, the update is synced to
// disk; a crash leaves the file as it was before or after.
func (f *FileStore) Save(_ context.Context, u Update) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fs.ErrClosed
	}
	// Load must never return what did not reach the disk.
	session, places := f.session, maps.Clone(f.places)
	u.apply(&session, places)
	if err := f.write(session, places); err != nil {
		return err
	}
	f.session, f.places = session, places
	return nil
}

func (f *FileStore) write(session SessionKey, places map[string]Place) error {
	c := fileContent{Version: fileVersion, Session: session, Places: slices.Collect(maps.Values(places))}
	slices.SortFunc(c.Places, func(a, b Place) int { return strings.Compare(a.Position.Room, b.Position.Room) })
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return replaceFile(f.path, append(b, '\n'))
}

// replaceFile puts b in the place of a file at once: either all of it is there
// after a crash or nothing.
func replaceFile(path string, b []byte) (err error) {
	t, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(t.Name())
		}
	}()
	_, err = t.Write(b)
	if err == nil {
		err = t.Sync()
	}
	if closeErr := t.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(t.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Close unlocks the file.
func (f *FileStore) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	return f.lock.Close() // which gives up the lock
}
