package command

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// checked is what check --json prints.
type checked struct {
	Dir      string `json:"dir"`
	Damaged  bool   `json:"damaged"`
	Rooms    int    `json:"rooms"`
	Events   int    `json:"events"`
	Found    int    `json:"found"`
	Problems []struct {
		Room   string `json:"room"`
		Offset int    `json:"offset"`
		File   string `json:"file"`
		Detail string `json:"problem"`
	} `json:"problems"`
	Notes []string `json:"notes"`
}

// talkedIn makes a data directory with a room, and leaves its server running.
func talkedIn(t *testing.T) (h *host, alice person, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	h = serveIn(t, dir, "")
	alice = newPerson(t, "alice", h.GRPC)
	alice.ok("", "send", "lobby", "it works")
	return h, alice, dir
}

func (h *host) terminate() {
	h.t.Helper()
	h.signal(syscall.SIGTERM)
	if code := h.end(); code != exitOK {
		h.t.Fatal("exit code ", code)
	}
}

func TestCheck(t *testing.T) {
	h, alice, dir := talkedIn(t)
	r := alice.run("", "check", dir)
	if r.code != exitFailure || !strings.Contains(r.err, "a server uses the data directory "+dir) || r.out != "" {
		t.Errorf("beside a server: exit code %d\n%s%s", r.code, r.out, r.err)
	}
	h.terminate()
	out := alice.ok("", "check", dir)
	if !strings.Contains(out, "All is as it was written.") || !strings.Contains(out, "read 1 rooms, 3 events") || strings.Contains(out, "note:") {
		t.Error(out)
	}
	all := objects[checked](t, alice.ok("", "check", dir, "--json"))
	if len(all) != 1 || all[0].Damaged || all[0].Events != 3 || all[0].Rooms != 1 || all[0].Problems == nil || all[0].Notes == nil {
		t.Error(all)
	}
	if r := alice.run("", "check", t.TempDir()); r.code != exitFailure || !strings.Contains(r.err, "is no data directory") {
		t.Errorf("an empty directory: exit code %d\n%s", r.code, r.err)
	}
}

func TestCheckDamaged(t *testing.T) {
	h, alice, dir := talkedIn(t)
	h.terminate()
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal("no table: ", err)
	}
	file := tables[0]
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r := alice.run("", "check", dir)
	if r.code != exitFailure || !strings.Contains(r.out, filepath.Base(file)+": ") || !strings.Contains(r.out, "its checksum is wrong") || !strings.Contains(r.err, dir+" is damaged") {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	r = alice.run("", "check", dir, "--json")
	all := objects[checked](t, r.out)
	if r.code != exitFailure || len(all) != 1 || !all[0].Damaged || all[0].Found == 0 || all[0].Problems[0].File != filepath.Base(file) {
		t.Errorf("exit code %d, %+v", r.code, all)
	}
}

func TestBackup(t *testing.T) {
	h, alice, dir := talkedIn(t)
	live, stopped := filepath.Join(t.TempDir(), "live"), filepath.Join(t.TempDir(), "stopped")
	if out := alice.ok("", "backup", "--dir", dir, live); !strings.Contains(out, "copied and checked: "+live) {
		t.Error(out)
	}
	h.errs.await(t, "backup made")
	if r := alice.run("", "backup", "--dir", dir, live); r.code != exitFailure || !strings.Contains(r.err, live+" exists") {
		t.Errorf("onto a backup: exit code %d\n%s", r.code, r.err)
	}
	alice.ok("", "send", "lobby", "not in the backup")
	h.terminate()
	alice.ok("", "backup", "--dir", dir, stopped)
	for backup, want := range map[string]int{live: 3, stopped: 4} {
		all := objects[checked](t, alice.ok("", "check", "--json", backup))
		if len(all) != 1 || all[0].Damaged || all[0].Events != want {
			t.Errorf("%s: %+v", backup, all)
		}
	}
	again := serveIn(t, live, "")
	if out := newPerson(t, "alice", again.GRPC).ok("", "tail", "lobby"); !strings.Contains(out, "it works") || strings.Contains(out, "not in the backup") {
		t.Errorf("the backup has\n%s", out)
	}
}

// TestBackupAfterKill has the socket of a server that was killed in the way, of
// the next server and of the command.
func TestBackupAfterKill(t *testing.T) {
	h, alice, dir := talkedIn(t)
	h.signal(syscall.SIGKILL)
	h.end()
	if _, err := os.Stat(filepath.Join(dir, backupDoor)); err != nil {
		t.Fatal("the socket is gone: ", err)
	}
	alice.ok("", "backup", "--dir", dir, filepath.Join(t.TempDir(), "stopped"))
	h = serveIn(t, dir, "")
	alice.ok("", "backup", "--dir", dir, filepath.Join(t.TempDir(), "live"))
	h.terminate()
	if _, err := os.Stat(filepath.Join(dir, backupDoor)); !os.IsNotExist(err) {
		t.Error("the socket is left behind: ", err)
	}
}

// TestBackupWithoutDoor has the directory in use by something that makes no
// backups.
func TestBackupWithoutDoor(t *testing.T) {
	_, alice, dir := talkedIn(t)
	if err := os.Remove(filepath.Join(dir, backupDoor)); err != nil {
		t.Fatal(err)
	}
	r := alice.run("", "backup", "--dir", dir, filepath.Join(t.TempDir(), "copy"))
	if r.code != exitFailure || !strings.Contains(r.err, "makes no backups") {
		t.Errorf("exit code %d\n%s", r.code, r.err)
	}
}
