package robustness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// disk is an ext4 file system in an image file whose power can be cut. What
// the image holds then is what the file system had written to it: everything
// that was synced, whatever the kernel had written back by itself, and nothing
// that was only in its page cache.
type disk struct {
	t          *testing.T
	image, dir string
	mounted    bool
}

// newDisk makes a disk of the given size in bytes and mounts it. Where that is
// not possible the test is skipped, or, if somebody asked for it by name,
// fails.
func newDisk(t *testing.T, size int64, asked bool) *disk {
	t.Helper()
	dir := t.TempDir()
	d := &disk{t: t, image: filepath.Join(dir, "image"), dir: filepath.Join(dir, "disk")}
	if err := d.make(size); err != nil {
		if asked {
			t.Fatalf("cutting the power of a disk needs root, mkfs.ext4, mount and loop devices: %v", err)
		}
		t.Skipf("cutting the power of a disk needs root, mkfs.ext4, mount and loop devices: %v", err)
	}
	t.Cleanup(d.unmount)
	return d
}

func (d *disk) make(size int64) error {
	if os.Getuid() != 0 {
		return errors.New("not root")
	}
	f, err := os.Create(d.image)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close(), os.Mkdir(d.dir, 0o700)); err != nil {
		return err
	}
	if err := tool("mkfs.ext4", "-q", "-F", d.image); err != nil {
		return err
	}
	return d.tryMount()
}

func (d *disk) tryMount() error {
	// The device is set up for this mount and goes away with it.
	if err := tool("mount", "-t", "ext4", "-o", "loop", d.image, d.dir); err != nil {
		return err
	}
	d.mounted = true
	return nil
}

// mount mounts it again, after a cut.
func (d *disk) mount() {
	d.t.Helper()
	if err := d.tryMount(); err != nil {
		d.t.Fatal(err)
	}
}

// cut cuts the power: from now on nothing reaches the image, neither what is
// in the page cache nor the journal's open transaction, and every read and
// write fails. It is the request by which xfstests tests that file systems
// survive a crash.
func (d *disk) cut() {
	d.t.Helper()
	const (
		ext4Shutdown = 0x8004587d // EXT4_IOC_SHUTDOWN
		noLogFlush   = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH
	)
	root, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer root.Close()
	how := uint32(noLogFlush)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, root.Fd(), ext4Shutdown, uintptr(unsafe.Pointer(&how))); errno != 0 {
		d.t.Fatalf("cutting the power: %v", errno)
	}
}

// sync syncs everything, as a calm half minute would.
func (d *disk) sync() {
	d.t.Helper()
	root, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer root.Close()
	if err := unix.Syncfs(int(root.Fd())); err != nil {
		d.t.Fatal(err)
	}
}

// unmount is for when nobody uses it.
func (d *disk) unmount() {
	d.t.Helper()
	if !d.mounted {
		return
	}
	if err := tool("umount", d.dir); err != nil {
		d.t.Errorf("%v: detaching it when its last user ends", err)
		_ = tool("umount", "--lazy", d.dir)
	}
	d.mounted = false
}

func tool(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

// A disk keeps what was synced and loses what was not, or its cuts prove
// nothing.
func TestDiskLosesWhatWasNotSynced(t *testing.T) {
	t.Parallel()
	d := newDisk(t, 64<<20, false)
	synced, unsynced := filepath.Join(d.dir, "synced"), filepath.Join(d.dir, "unsynced")
	f, err := os.Create(synced)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("first")
	if err := errors.Join(err, f.Sync()); err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(" second")
	if err := errors.Join(err, f.Close(), os.WriteFile(unsynced, []byte("third"), 0o600)); err != nil {
		t.Fatal(err)
	}
	d.cut()
	if err := os.WriteFile(filepath.Join(d.dir, "late"), nil, 0o600); !errors.Is(err, unix.EIO) {
		t.Errorf("a disk without power takes a file: %v", err)
	}
	d.unmount()
	d.mount()
	if got, err := os.ReadFile(synced); string(got) != "first" {
		t.Errorf("of %q, of which %q was synced, there is %q: %v", "first second", "first", got, err)
	}
	if got, err := os.ReadFile(unsynced); !os.IsNotExist(err) {
		t.Errorf("a file that was never synced is there: %q, %v", got, err)
	}
}
