package command

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// The door by which a backup is asked for is a socket in the data directory,
// which only its owner may enter: no port, no token, and whoever can use it
// could copy the files as well.
const backupDoor = "backup.sock"

// maxSocketPath is what every system takes as the path of a socket.
const maxSocketPath = 103

// backupRequest and backupAnswer are the two lines of a conversation.
type backupRequest struct {
	Dest string `json:"dest"`
}

type backupAnswer struct {
	Error string `json:"error,omitempty"`
}

// door serves requests for backups, one at a time.
type door struct {
	listener net.Listener
	backup   func(ctx context.Context, dest string) error
	log      *slog.Logger
	cancel   context.CancelFunc
	done     sync.WaitGroup
}

// openDoor listens in dir, which the caller's server has open. That there is no
// door is no reason not to serve: it is logged, and close does nothing.
func openDoor(dir string, backup func(ctx context.Context, dest string) error, log *slog.Logger) *door {
	d := &door{backup: backup, log: log, cancel: func() {}}
	path := filepath.Join(dir, backupDoor)
	err := os.Remove(path) // left by a server that was killed
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("reprise backup will not work while this serves", "error", err)
		return d
	}
	if len(path) > maxSocketPath {
		log.Warn("reprise backup will not work while this serves: the path of the data directory is too long for a socket", "path", path)
		return d
	}
	ctx, cancel := context.WithCancel(context.Background())
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		cancel()
		log.Warn("reprise backup will not work while this serves", "error", err)
		return d
	}
	d.listener, d.cancel = listener, cancel
	if err := os.Chmod(path, 0o600); err != nil {
		log.Warn("the socket for backups has the permissions it was made with", "path", path, "error", err)
	}
	d.done.Go(func() { d.serve(ctx) })
	return d
}

// close ends a backup that is under way, and waits for that. It may be called
// more than once.
func (d *door) close() {
	d.cancel()
	if d.listener != nil {
		_ = d.listener.Close() // also removes the socket
	}
	d.done.Wait()
}

func (d *door) serve(ctx context.Context) {
	for {
		conn, err := d.listener.Accept()
		if err != nil {
			return // closed
		}
		d.answer(ctx, conn)
	}
}

// answer carries out one request. Whoever asks waits; when they go away the
// backup is ended.
func (d *door) answer(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	// Others wait behind this one: a request comes at once.
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	in := bufio.NewReader(io.LimitReader(conn, 64<<10))
	line, err := in.ReadBytes('\n')
	var request backupRequest
	if err == nil {
		err = json.Unmarshal(line, &request)
	}
	if err == nil && !filepath.IsAbs(request.Dest) {
		err = fmt.Errorf("%q is no absolute path", request.Dest)
	}
	_ = conn.SetReadDeadline(time.Time{})
	if err == nil {
		err = d.run(ctx, conn, request.Dest)
	}
	var a backupAnswer
	if err != nil {
		a.Error = err.Error()
	}
	_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_ = writeJSON(conn, a) // or they have gone away
}

func (d *door) run(ctx context.Context, conn net.Conn, dest string) error {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		_, _ = conn.Read(make([]byte, 1)) // returns when they go away
		cancel()
	})
	began := time.Now()
	err := d.backup(ctx, dest)
	_ = conn.SetReadDeadline(time.Now()) // ends the watch
	watch.Wait()
	if err != nil {
		d.log.Error("backup failed", "dest", dest, "error", err)
		return err
	}
	d.log.Info("backup made", "dest", dest, "took", time.Since(began).Round(time.Millisecond).String())
	return nil
}

// askForBackup has the server that uses dir copy it.
func askForBackup(ctx context.Context, dir, dest string) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", filepath.Join(dir, backupDoor))
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("a server uses the data directory %s, and only its own user may ask it for a backup: ask as that user (%w)", dir, err)
	}
	if err != nil {
		return fmt.Errorf("a process uses the data directory %s and makes no backups: if it is a server, see its log; if it is reprise check, wait for it (%w)", dir, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := writeJSON(conn, backupRequest{Dest: dest}); err != nil {
		return err
	}
	var a backupAnswer
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return errors.Join(fmt.Errorf("the server ended before the backup was made: %w", err), ctx.Err())
	}
	if a.Error != "" {
		return errors.New(a.Error)
	}
	return nil
}
