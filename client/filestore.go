package reprise

import "context"

// FileStore keeps a session and its positions in a file, for one process at a
// time.
type FileStore struct {
}

// OpenFile opens or creates a position file (mode 0600: it holds the resume
// key) and locks it against other processes: ErrStoreLocked says that one has
// it. The directory must exist. Close it after the Client.
func OpenFile(path string) (*FileStore, error) { return nil, errSkeleton }

// Load implements [PositionStore].
func (f *FileStore) Load(ctx context.Context) (Saved, error) { return Saved{}, errSkeleton }

// Save implements [PositionStore]. When it returns, the update is synced to
// disk; a crash leaves the file as it was before or after.
func (f *FileStore) Save(ctx context.Context, u Update) error { return errSkeleton }

// Close unlocks the file.
func (f *FileStore) Close() error { return nil }
