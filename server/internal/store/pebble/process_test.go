package pebble

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// childDir, if set, makes the test binary a server of that directory.
const childDir = "REPRISE_TEST_STORE_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
	}
	os.Exit(m.Run())
}

// child appends for ever to one room, and prints each offset once it is
// acknowledged.
func child(dir string) {
	fail := func(err error) {
		fmt.Println(err)
		os.Exit(2)
	}
	s, err := Open(dir, Options{})
	if err != nil {
		fail(err)
	}
	l, err := s.OpenLog(context.Background(), "r")
	if err != nil {
		fail(err)
	}
	fmt.Println("open")
	done := make(chan uint64, 64)
	slots := make(chan struct{}, 32)
	go func() {
		for n := range done {
			fmt.Println(n)
		}
	}()
	for n := l.State().Head + 1; ; n++ {
		slots <- struct{}{}
		a := &store.Append{Expect: n - 1, Events: []store.Event{{Encoded: element(n, "alice", "")}}}
		if n == 1 {
			a.Create = &store.Meta{Name: "r"}
		}
		a.Done = func(err error) {
			if err != nil {
				fail(err)
			}
			done <- n
			<-slots
		}
		if err := l.Append(a); err != nil {
			fail(err)
		}
	}
}

// startChild starts a process that serves dir and returns it with its output,
// once the store is open.
func startChild(t *testing.T, dir string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = nil
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "open" {
		t.Fatalf("the child says %q", lines.Text())
	}
	return cmd, lines
}

// TestP1_Kill kills a process with SIGKILL while it appends.
func TestP1_Kill(t *testing.T) {
	dir := t.TempDir()
	var acked uint64
	for range 5 {
		cmd, lines := startChild(t, dir)
		for range 200 {
			if !lines.Scan() {
				t.Fatal("the child ended")
			}
			if _, err := fmt.Sscan(lines.Text(), &acked); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it acknowledged until it was dead
			_, _ = fmt.Sscan(lines.Text(), &acked)
		}
		_ = cmd.Wait()
		s := mustOpen(t, dir, options(t))
		l := logOf(t, s, "r")
		head := l.State().Head
		if head < acked {
			t.Fatalf("head %d; acknowledged %d", head, acked)
		}
		if p, err := l.Read(t.Context(), 0, head, 1<<30, nil); err != nil || p.First != 1 || p.Last != head {
			t.Fatalf("read [%d, %d] of %d: %v", p.First, p.Last, head, err)
		}
		mustClose(t, s)
	}
}

func TestLockedByAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	cmd, _ := startChild(t, dir)
	_, err := Open(dir, options(t))
	wantErr(t, err, store.ErrLocked)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	mustClose(t, mustOpen(t, dir, options(t))) // a lock ends with its process
}

// TestLockedHere opens one directory by several names.
func TestLockedHere(t *testing.T) {
	parent := t.TempDir()
	t.Chdir(parent)
	dir := filepath.Join(parent, "data")
	s := mustOpen(t, dir, options(t))
	if err := os.Symlink(dir, filepath.Join(parent, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, "data", "./data/", "link"} {
		_, err := Open(name, options(t))
		wantErr(t, err, store.ErrLocked)
	}
	fill(t, logOf(t, s, "r"), 3) // and the first one works on
	mustClose(t, s)
	mustClose(t, mustOpen(t, "link", options(t)))
}

func TestDirectory(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "a", "b")
	mustClose(t, mustOpen(t, dir, options(t)))
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm() != dirMode {
			t.Errorf("%s: %v, %v", d, info.Mode(), err)
		}
	}
	file := filepath.Join(parent, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(file, "data"), options(t)); err == nil || errors.Is(err, store.ErrLocked) {
		t.Errorf("below a file: %v", err)
	}
}
