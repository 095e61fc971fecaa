package server

import (
	"context"
	"errors"

	"github.com/reprise-chat/reprise/server/internal/store/pebble"
)

// CheckReport is what a check of a data directory found.
type CheckReport = pebble.Report

// CheckProblem is something in a data directory that is not as it was written.
type CheckProblem = pebble.Problem

// Check reads everything in the data directory of a stopped server, changes
// nothing, and reports what is not as it was written: damaged files, records
// that do not decode, and records that do not agree with each other. What it
// found is in the report; an error says that the check could not be made or was
// ended: ErrLocked (wrapped) while a server uses the directory, the context's.
//
// progress, if not nil, is called now and then, on the caller's goroutine, with
// what has been read so far.
func Check(ctx context.Context, dir string, progress func(CheckReport)) (CheckReport, error) {
	return pebble.Check(ctx, dir, pebble.CheckOptions{Progress: progress})
}

// Backup copies the data directory of a stopped server to dest, which must not
// exist, and checks the copy. The error wraps ErrLocked while a server uses the
// directory: then call [Server.Backup] in that server's process.
func Backup(ctx context.Context, dir, dest string) error { return pebble.Backup(ctx, dir, dest) }

// ErrNoBackup is returned by [Server.Backup] if the store cannot be copied.
var ErrNoBackup = errors.New("server: this store has no backup of its own")

// Backup copies the data of a server, which may be serving, to the directory
// dest, which must not exist. The copy is of one moment: it has everything that
// was acknowledged before the call. It is synced and checked when Backup
// returns.
//
// A server on the copy resumes every client. Those that hold more than it has
// are told to forget that with a Rewind.
func (s *Server) Backup(ctx context.Context, dest string) error {
	st, ok := s.store.(interface {
		Backup(ctx context.Context, dest string) error
	})
	if !ok {
		return ErrNoBackup
	}
	s.sessions.Flush(ctx) // positions that were acknowledged and not stored yet
	return st.Backup(ctx, dest)
}
