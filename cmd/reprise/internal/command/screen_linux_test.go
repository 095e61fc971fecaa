package command

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal with a chat on it.
type terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	keys   *os.File
	screen *buffer
	done   chan struct{}
}

// openTerminal starts a command on a terminal of its own.
func openTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	master, slave := openPTY(t)
	defer slave.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.Env = append(cmd.Env, "TERM=xterm-256color")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, cmd: cmd, keys: master, screen: &buffer{}, done: make(chan struct{})}
	go func() {
		defer close(term.done)
		_, _ = io.Copy(term.screen, master) // ends with EIO when the command does
		_ = cmd.Wait()                      // the tests look at ProcessState
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-term.done
		master.Close()
	})
	return term
}

// openPTY opens a pair of 80 by 24.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here: ", err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// enter types text and presses enter.
func (term *terminal) enter(text string) {
	term.t.Helper()
	if _, err := term.keys.WriteString(text + "\r"); err != nil {
		term.t.Fatal(err)
	}
}

func (term *terminal) end() int {
	term.t.Helper()
	<-term.done
	return term.cmd.ProcessState.ExitCode()
}

// TestP7_ChatGoesOnWhereItWasClosed is an evening with the chat: talk, the
// server crashes, talk on, close, and open it again.
func TestP7_ChatGoesOnWhereItWasClosed(t *testing.T) {
	dir := t.TempDir()
	h := serveIn(t, dir, "")
	alice, bob := newPerson(t, "alice", h.GRPC), newPerson(t, "bob", h.GRPC)
	open := func() *terminal {
		return openTerminal(t, command(t, []string{"REPRISE_SERVER=" + h.GRPC, "XDG_STATE_HOME=" + alice.home}, "chat", "lobby"))
	}
	bob.ok("", "send", "lobby", "before-alice-came")
	chat := open()
	chat.screen.await(t, "before-alice-came")
	chat.screen.await(t, "● connected")
	bob.ok("", "send", "lobby", "live")
	chat.screen.await(t, "live")

	h.signal(syscall.SIGKILL)
	h.end()
	chat.screen.await(t, "○ reconnecting")
	chat.enter("typed-while-it-was-down")
	h = serveIn(t, dir, h.GRPC)
	bob.ok("", "send", "lobby", "after-the-crash")
	chat.screen.await(t, "after-the-crash")

	// A second chat at the same time has a place of its own.
	second := open()
	second.screen.await(t, "typed-while-it-was-down")
	second.enter("from-the-second")
	chat.screen.await(t, "from-the-second")
	second.enter("/quit")
	if code := second.end(); code != exitOK {
		t.Error("exit code ", code)
	}

	chat.enter("/quit")
	if code := chat.end(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, chat.screen)
	}
	bob.ok("", "send", "lobby", "while-alice-was-away")
	again := open()
	again.screen.await(t, "1 new since you were here")
	again.screen.await(t, "while-alice-was-away")
	again.enter("/quit")
	if code := again.end(); code != exitOK {
		t.Error("exit code ", code)
	}

	got := texts(t, alice, "lobby")
	slices.Sort(got) // the crash lets alice and bob race
	want := []string{"after-the-crash", "before-alice-came", "from-the-second", "live", "typed-while-it-was-down", "while-alice-was-away"}
	if !slices.Equal(got, want) {
		t.Errorf("the room has %q", got)
	}
}

// TestChatWithoutServer has a person told, and not shown an empty screen.
func TestChatWithoutServer(t *testing.T) {
	chat := openTerminal(t, command(t, []string{"REPRISE_SERVER=127.0.0.1:1", "XDG_STATE_HOME=" + t.TempDir()}, "chat", "lobby"))
	if code := chat.end(); code != exitFailure {
		t.Error("exit code ", code)
	}
	chat.screen.await(t, "no server answers at 127.0.0.1:1")
}

// TestChatAfterTheDataAreWiped has the server come back without its data under
// a chat: the room is joined again, and what is typed is sent.
func TestChatAfterTheDataAreWiped(t *testing.T) {
	h := serveIn(t, t.TempDir(), "")
	alice := newPerson(t, "alice", h.GRPC)
	chat := openTerminal(t, command(t, []string{"REPRISE_SERVER=" + h.GRPC, "XDG_STATE_HOME=" + alice.home}, "chat", "lobby"))
	chat.screen.await(t, "● connected")
	chat.enter("in-the-old-log")
	chat.screen.await(t, "alice in-the-old-log")
	h.signal(syscall.SIGKILL)
	h.end()
	chat.screen.await(t, "○ reconnecting")
	h = serveIn(t, t.TempDir(), h.GRPC)
	chat.screen.await(t, "the server does not know that you were in lobby")
	chat.enter("in-the-new-log")
	bob := newPerson(t, "bob", h.GRPC)
	deadline := time.Now().Add(patience)
	for {
		if got := texts(t, bob, "lobby", "--join"); slices.Contains(got, "in-the-new-log") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("what was typed is not in the log\n%s", chat.screen)
		}
	}
	bob.ok("", "send", "lobby", "and-this-is-shown")
	chat.screen.await(t, "and-this-is-shown")
	chat.enter("/quit")
	if code := chat.end(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, chat.screen)
	}
}

// TestChatWithoutAHome has nowhere to keep a place: it is said, and chatted.
func TestChatWithoutAHome(t *testing.T) {
	h := serveIn(t, t.TempDir(), "")
	for _, home := range [][]string{nil, {"HOME=/proc/nowhere"}, {"XDG_STATE_HOME=/dev/null"}} {
		cmd := command(t, append([]string{"REPRISE_SERVER=" + h.GRPC}, home...), "chat", "lobby")
		cmd.Stdin = strings.NewReader("from a container\n")
		var problems strings.Builder
		cmd.Stderr = &problems
		out, err := cmd.Output()
		if err != nil || !strings.Contains(string(out), "from a container") {
			t.Errorf("%v: %v\n%s%s", home, err, out, problems.String())
		}
		if !strings.Contains(problems.String(), "the place of this chat is not kept") {
			t.Errorf("%v: it says %q", home, problems.String())
		}
	}
}
