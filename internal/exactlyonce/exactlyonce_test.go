package exactlyonce

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/server"
)

// patience bounds every wait of these tests: reaching it is a failure.
const patience = 2 * time.Minute

// kills is how often the program is killed, in each of the tests.
func kills(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv("REPRISE_EXACTLY_ONCE"))
	if os.Getenv("REPRISE_EXACTLY_ONCE") == "" {
		n, err = 20, nil
	}
	if err != nil {
		t.Fatal("REPRISE_EXACTLY_ONCE is no number: ", err)
	}
	return n
}

// TestP2_ExactlyOnceKilled kills the example program of the SDK at one point
// after the other, and in between at moments that nothing has chosen, while
// events are published, and while its user is made a member of more rooms, and
// leaves some, from elsewhere, both when it runs and when it is away. Each event must have exactly one line, unless it is
// of a gap that the archive says it has.
func TestP2_ExactlyOnceKilled(t *testing.T) {
	for _, keepsSession := range []bool{false, true} {
		t.Run(fmt.Sprint("session kept=", keepsSession), func(t *testing.T) {
			w := newWorld(t, keepsSession)
			w.join(w.archive, "first")
			w.publish("first", 3)
			for kill := 1; kill <= kills(t); kill++ {
				w.happen(kill)
				w.runUntilKilled(kill)
				w.check(false)
			}
			w.happen(1)
			w.run(0, 0)
			w.check(true)
		})
	}
}

// TestP2_ExactlyOnceCanFail is the control of the tests here: a program whose
// line and position are not in one transaction is caught.
func TestP2_ExactlyOnceCanFail(t *testing.T) {
	w := newWorld(t, false, "	return a.db.Update(func(tx *bbolt.Tx) error {\n		if err := add(tx, line); err != nil {\n			return err\n		}\n		return tx.",
		"	if err := a.db.Update(func(tx *bbolt.Tx) error { return add(tx, line) }); err != nil {\n		return err\n	}\n	return a.db.Update(func(tx *bbolt.Tx) error {\n		return tx.")
	w.join(w.archive, "first")
	for kill := 1; kill <= 100; kill++ {
		w.publish("first", 5)
		w.runUntilKilled(1)
		if problem := w.problem(false); problem != "" {
			t.Logf("noticed at kill %d: %s", kill, problem)
			return
		}
	}
	t.Error("nobody notices")
}

// TestP2_ExactlyOnceAway is the plain case: what happens in a room that the
// program keeps no position of, while it is away, comes, or is told.
func TestP2_ExactlyOnceAway(t *testing.T) {
	for _, keepsSession := range []bool{false, true} {
		t.Run(fmt.Sprint("session kept=", keepsSession), func(t *testing.T) {
			w := newWorld(t, keepsSession)
			w.run(0, 0) // it is in no room
			w.join(w.archive, "lobby")
			w.publish("lobby", 5)
			w.run(0, 0)
			if got := w.lines("lobby"); len(got) < 2 || len(got) < 6 && !strings.HasPrefix(got[1], "gap in lobby: 1 to ") {
				t.Errorf("of the first room, joined while the program was away, the archive has %q", got)
			}
			w.join(w.archive, "elsewhere")
			w.publish("elsewhere", 20)
			w.publish("lobby", 20)
			w.run(0, 0)
			w.check(true)
			if got := w.lines("lobby"); len(got) < 20 {
				t.Errorf("of 20 events that were published while the program was away the archive has %q", got)
			}
			if got := w.lines("elsewhere"); keepsSession && len(got) < 21 || len(got) < 2 {
				t.Errorf("of the room that was joined while the program was away the archive has %q", got)
			}
		})
	}
}

// world is a server, somebody who talks, and the archive's user at another
// device.
type world struct {
	t       *testing.T
	server  string
	program string
	db      string
	session string
	alice   *reprise.Client
	archive *reprise.Client

	mu     sync.Mutex
	random *rand.Rand
	rooms  []string
	texts  int
}

func newWorld(t *testing.T, keepsSession bool, breakIt ...string) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{
		t: t, server: serve(t, filepath.Join(dir, "data")), program: build(t, breakIt...),
		db: filepath.Join(dir, "archive.db"), random: rand.New(rand.NewPCG(1, 2)),
	}
	if keepsSession {
		w.session = filepath.Join(dir, "session.json")
	}
	w.alice, w.archive = w.client("alice"), w.client("archive")
	return w
}

// serve starts a real server over a directory and returns its address.
func serve(t *testing.T, dir string) string {
	t.Helper()
	s, err := server.New(server.Options{
		Dir: dir, DiskReserve: -1, Logger: slog.New(slog.DiscardHandler),
		Limits: server.Limits{UserPublishes: -1, RoomPublishes: -1, UserCreates: -1, Attaches: -1},
	})
	if err != nil {
		t.Fatal(err)
	}
	var listeners [2]net.Listener
	for i := range listeners {
		if listeners[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(listeners[0], listeners[1]) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // no drain
		_ = s.Shutdown(ctx)
		<-served
	})
	return listeners[0].Addr().String()
}

// build makes a program of the SDK's example as it stands in its documentation,
// but for what is replaced, old by new.
func build(t *testing.T, replace ...string) string {
	t.Helper()
	dir := t.TempDir()
	example, err := os.ReadFile("../../client/example_exactlyonce_test.go")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("testdata/program.go")
	if err != nil {
		t.Fatal(err)
	}
	example = bytes.Replace(example, []byte("package reprise_test"), []byte("package main"), 1)
	for i := 0; i < len(replace); i += 2 {
		if !bytes.Contains(example, []byte(replace[i])) {
			t.Fatalf("the example has no %q", replace[i])
		}
		example = bytes.Replace(example, []byte(replace[i]), []byte(replace[i+1]), 1)
	}
	sources := []string{filepath.Join(dir, "example.go"), filepath.Join(dir, "program.go")}
	for i, source := range [][]byte{example, program} {
		if err := os.WriteFile(sources[i], source, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	binary := filepath.Join(dir, "archive")
	args := append([]string{"build", "-o", binary}, sources...)
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

func (w *world) client(user string) *reprise.Client {
	w.t.Helper()
	c, err := reprise.New(reprise.Config{
		Addresses: []string{w.server},
		Logger:    slog.New(slog.DiscardHandler),
		Token:     func(context.Context) (string, error) { return "dev:" + user, nil },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

func (w *world) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

// join makes a user, and alice, members of a room.
func (w *world) join(user *reprise.Client, room string) {
	ctx, cancel := w.context()
	defer cancel()
	for _, c := range []*reprise.Client{w.alice, user} {
		if _, err := c.Join(ctx, room, 0); err != nil {
			w.t.Error(err)
			return
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.rooms {
		if r == room {
			return
		}
	}
	w.rooms = append(w.rooms, room)
}

func (w *world) publish(room string, n int) {
	ctx, cancel := w.context()
	defer cancel()
	for range n {
		w.mu.Lock()
		w.texts++
		text := fmt.Sprint("text ", w.texts)
		w.mu.Unlock()
		if _, err := w.alice.Send(ctx, room, text); err != nil {
			w.t.Error(err)
		}
	}
}

func (w *world) pick() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rooms[w.random.IntN(len(w.rooms))]
}

// happen is what goes on while the program is away.
func (w *world) happen(kill int) {
	w.publish(w.pick(), 2)
	if kill%3 == 0 {
		room := fmt.Sprint("room-", kill)
		w.join(w.archive, room)
		w.publish(room, 2)
	}
	if kill%5 == 0 {
		room := w.pick()
		ctx, cancel := w.context()
		defer cancel()
		if err := w.archive.Leave(ctx, room); err != nil {
			w.t.Error(err)
		}
		w.publish(room, 1)
		if kill%2 == 0 {
			w.join(w.archive, room)
			w.publish(room, 1)
		} else {
			w.forget(room)
		}
	}
}

// forget publishes no more to a room that the archive has left; alice's events
// there are nobody's.
func (w *world) forget(room string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, r := range w.rooms {
		if r == room && len(w.rooms) > 1 {
			w.rooms = append(w.rooms[:i:i], w.rooms[i+1:]...)
			return
		}
	}
}

// runUntilKilled runs the program, while things happen, until it is killed:
// every other time at the next point.
func (w *world) runUntilKilled(kill int) {
	w.t.Helper()
	done := make(chan struct{})
	var talking sync.WaitGroup
	defer talking.Wait()
	defer close(done)
	talking.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond): // so that something is live
			}
			if i%8 == 0 {
				w.join(w.archive, fmt.Sprintf("live-%d-%d", kill, i))
			}
			w.publish(w.pick(), 1)
		}
	})
	if kill%2 == 0 {
		w.run(kill/2, 0)
	} else {
		w.mu.Lock()
		after := rand.N(100 * time.Millisecond) // the moment is what is random
		w.mu.Unlock()
		w.run(0, after)
	}
}

// run runs the program until it has killed itself at a point, or until it is
// killed after a while, or, if both are 0, until it has caught up.
func (w *world) run(point int, after time.Duration) {
	w.t.Helper()
	ctx, cancel := w.context()
	defer cancel()
	cmd := exec.CommandContext(ctx, w.program)
	cmd.Env = append(os.Environ(), "SERVER="+w.server, "ARCHIVE="+w.db, "SESSION="+w.session)
	if point > 0 {
		cmd.Env = append(cmd.Env, fmt.Sprint("KILL_AT=", point))
	}
	if point == 0 && after > 0 {
		cmd.Env = append(cmd.Env, "KILL_AT=-1") // go on when caught up
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	if after > 0 {
		timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
	}
	err := cmd.Wait()
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	killed := status.Signaled() && status.Signal() == syscall.SIGKILL
	if toBe := point > 0 || after > 0; ctx.Err() != nil || !toBe && err != nil || toBe && !killed {
		w.t.Fatalf("the program that is to be killed at point %d or after %v ended with %v (%v)\n%s", point, after, err, ctx.Err(), &out)
	}
}
