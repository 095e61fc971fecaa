package command

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shell runs a line of a shell as an operator does.
func shell(t *testing.T, line string, args ...string) {
	t.Helper()
	if out, err := exec.Command("sh", append([]string{"-euc", line, "sh"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// stops waits for the end of a server that nobody ended: it must say why, and
// not end well.
func (h *host) stops(t *testing.T, why string) {
	t.Helper()
	if code := h.end(); code != exitFailure {
		t.Errorf("exit code %d, want %d", code, exitFailure)
	}
	if log := h.errs.String(); !strings.Contains(log, why) || !strings.Contains(log, "nothing more is acknowledged") {
		t.Errorf("want %q; the server says:\n%s", why, log)
	}
}

// eventsOf returns how many events a check counts in a directory that is whole.
func eventsOf(t *testing.T, alice person, dir string) int {
	t.Helper()
	all := objects[checked](t, alice.ok("", "check", "--json", dir))
	if len(all) != 1 {
		t.Fatal(all)
	}
	return all[0].Events
}

// TestP1_DirectoryOutside does to the data directory of a real server what
// operators do. The server stops, whoever talks or not, and harms neither the
// directory it had nor the one that has its name.
func TestP1_DirectoryOutside(t *testing.T) {
	for _, c := range []struct {
		name, line string // of a shell, with the directory as $1 and another name as $2
		why        string
		left       []string // which of the two are whole stores afterwards
	}{
		{"moved", `mv "$1" "$2"`, "was moved or deleted", []string{"away"}},
		{"deleted", `rm -rf "$1"`, "was moved or deleted", nil},
		{"deleted and made anew", `rm -rf "$1"; mkdir "$1"`, "was replaced by another one", nil},
		{"replaced by a copy", `cp -a "$1" "$2.new"; mv "$1" "$2"; mv "$2.new" "$1"`, "was replaced by another one", []string{"data", "away"}},
		{"emptied", `rm -rf "$1"/*`, "", nil},
		{"log deleted", `rm "$1"/*.log`, "lost its log of writes", nil},
		{"table deleted", `rm "$1"/*.sst`, "lost its file", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h, alice, dir := talkedIn(t)
			away := filepath.Join(t.TempDir(), "away")
			if c.name == "table deleted" { // a start makes one of the log
				h.signal(syscall.SIGKILL)
				h.end()
				h = serveIn(t, dir, "")
				alice.addr = h.GRPC
			}
			shell(t, c.line, dir, away)
			names := func() (names []string) {
				entries, _ := os.ReadDir(dir)
				for _, e := range entries {
					names = append(names, e.Name())
				}
				return names
			}
			before := names()
			h.stops(t, c.why)
			if after := names(); len(after) > len(before) {
				t.Errorf("the directory had %v and has %v", before, after)
			}
			for _, name := range c.left {
				if n := eventsOf(t, alice, map[string]string{"data": dir, "away": away}[name]); n != 3 {
					t.Errorf("%s has %d events", name, n)
				}
			}
		})
	}
}

// TestP1_DirectoryServedTwice replaces the directory of a server by a copy and
// serves that: two servers, two directories, and only the second one goes on.
func TestP1_DirectoryServedTwice(t *testing.T) {
	t.Parallel()
	first, alice, dir := talkedIn(t)
	away := filepath.Join(t.TempDir(), "away")
	shell(t, `cp -a "$1" "$2.new"; mv "$1" "$2"; mv "$2.new" "$1"`, dir, away)
	second := serveIn(t, dir, "")
	at := alice
	at.addr = second.GRPC
	at.ok("", "send", "lobby", "to the second one")
	first.stops(t, "was replaced by another one")
	at.ok("", "send", "lobby", "and once more")
	second.terminate()
	if n := eventsOf(t, alice, dir); n != 5 {
		t.Errorf("the copy has %d events", n)
	}
	if n := eventsOf(t, alice, away); n != 3 {
		t.Errorf("the directory that was moved has %d events", n)
	}
}

// needsRoot skips a test that mounts something, or becomes somebody else.
func needsRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
}

// TestP1_DirectoryReadOnly has the file system of a server become read-only, as
// ext4 does when its disk fails: what is published is not acknowledged, and the
// server ends. What was acknowledged is there.
func TestP1_DirectoryReadOnly(t *testing.T) {
	needsRoot(t)
	disk := filepath.Join(t.TempDir(), "disk")
	image := disk + ".image"
	if err := errors.Join(os.Mkdir(disk, 0o700), os.WriteFile(image, nil, 0o600), os.Truncate(image, 64<<20)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-euc", `mkfs.ext4 -q -F "$1"; mount -o loop,errors=remount-ro "$1" "$2"`, "sh", image, disk).CombinedOutput(); err != nil {
		t.Skipf("no loop device: %v\n%s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "--lazy", disk).Run() })
	dir := filepath.Join(disk, "data")
	h := serveIn(t, dir, "")
	alice := newPerson(t, "alice", h.GRPC)
	alice.ok("", "send", "lobby", "before")
	shell(t, `mount -o remount,abort "$1"`, disk)
	sent := make(chan result, 1)
	go func() { sent <- alice.run("", "send", "lobby", "after", "--timeout", "5s") }()
	if code := h.end(); code != exitFailure {
		t.Errorf("exit code %d\n%s", code, h.errs)
	}
	if log := h.errs.String(); !strings.Contains(log, "read-only") {
		t.Errorf("the server says:\n%s", log)
	}
	if r := <-sent; r.code == exitOK {
		t.Errorf("acknowledged: %s", r.out)
	}
	if n := eventsOf(t, alice, dir); n != 3 {
		t.Errorf("%d events", n)
	}
}

// TestReadOnlyMedium checks and copies a directory on a medium that is
// read-only, and as a user who may only read.
func TestReadOnlyMedium(t *testing.T) {
	needsRoot(t)
	h, alice, dir := talkedIn(t)
	h.terminate()
	medium := filepath.Join(t.TempDir(), "medium")
	if err := os.Mkdir(medium, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-euc", `mount --bind "$1" "$2"; mount -o remount,ro,bind "$2"`, "sh", dir, medium).CombinedOutput(); err != nil {
		t.Skipf("no mount: %v\n%s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "--lazy", medium).Run() })
	if n := eventsOf(t, alice, medium); n != 3 {
		t.Errorf("%d events", n)
	}
	dest := filepath.Join(t.TempDir(), "copy")
	alice.ok("", "backup", "--dir", medium, dest)
	if n := eventsOf(t, alice, dest); n != 3 {
		t.Errorf("the copy has %d events", n)
	}

	// A user who may read, and nothing else; and one who may not read LOCK.
	shell(t, `chmod -R go=rX "$1"; d=$1; while [ "$d" != / ]; do chmod go+x "$d"; d=$(dirname "$d"); done`, dir)
	binary := filepath.Join(t.TempDir(), "reprise.test")
	shell(t, `cp "$1" "$2"; chmod 755 "$2"; d=$2; while [ "$d" != / ]; do chmod go+x "$d"; d=$(dirname "$d"); done`, os.Args[0], binary)
	for _, line := range []string{"", `chmod 600 "$1"/LOCK`} {
		shell(t, line, dir)
		out := asNobody(t, binary, "check", dir)
		if !strings.Contains(out, "All is as it was written.") || strings.Contains(out, "cannot be told") != (line != "") {
			t.Errorf("%q:\n%s", line, out)
		}
	}
	into := filepath.Join("/tmp", "reprise-test-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	t.Cleanup(func() { _ = os.RemoveAll(into) })
	if out := asNobody(t, binary, "backup", "--dir", dir, into); !strings.Contains(out, "copied and checked") {
		t.Error(out)
	}

	// While a server has it, it is said that one has.
	shell(t, `chmod 644 "$1"/LOCK`, dir)
	h = serveIn(t, dir, "")
	if out := asNobody(t, binary, "check", dir); !strings.Contains(out, "a server uses the data directory") {
		t.Error(out)
	}
	h.terminate()
}

// asNobody runs the command as a user who owns nothing.
func asNobody(t *testing.T, binary string, args ...string) string {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Env = []string{"REPRISE_TEST_COMMAND=1", "USER=nobody"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, _ := cmd.CombinedOutput() // the exit code is said in the text
	return string(out)
}
