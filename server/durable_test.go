package server_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

// childDir is the environment variable that makes the test binary a server
// over the directory it names, so that a test can kill it.
const childDir = "REPRISE_TEST_CHILD_DIR"

func runChild(dir string) {
	srv, err := server.New(server.Options{Dir: dir, DiskReserve: -1, Limits: server.Limits{UserPublishes: -1, RoomPublishes: -1}})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	g, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		os.Exit(1)
	}
	h, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		os.Exit(1)
	}
	fmt.Println("listening", g.Addr())
	fmt.Println(srv.Serve(g, h))
	os.Exit(1)
}

// spawn starts a server process over dir. kill ends it with SIGKILL.
func spawn(t *testing.T, dir string) (n *node, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = testWriter{t}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n = &node{t: t}
	kill = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if n.conn != nil {
			n.conn.Close()
		}
	})
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening ")
	if err != nil || !ok {
		t.Fatalf("the server process said %q, %v", line, err)
	}
	n.addr = addr
	n.dial()
	return n, kill
}

// What was acknowledged survives kill -9, whatever the server was doing.
func TestP1_AcknowledgedSurvivesKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	acked := make(map[uint64]string)
	var mu sync.Mutex
	var live *stream
	for round := range 3 {
		n, kill := spawn(t, dir)
		n.join("alice", "lobby")
		if round == 0 {
			live = n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
		} else {
			live = n.resume("alice", live.again())
		}
		enough := make(chan struct{})
		reached := sync.OnceFunc(func() { close(enough) })
		want := len(acked) + 200
		var wg sync.WaitGroup
		for w := range 8 {
			ctx, client := as(t, "alice"), n.ChatServiceClient
			wg.Go(func() {
				for i := 0; ; i++ {
					text := fmt.Sprintf("%d-%d-%d", round, w, i)
					out, err := client.SendMessage(ctx, &reprisev1.SendMessageRequest{Room: "lobby", Text: text})
					if err != nil {
						return
					}
					mu.Lock()
					acked[out.GetOffset()] = text
					if len(acked) >= want {
						reached()
					}
					mu.Unlock()
				}
			})
		}
		<-enough
		kill()
		wg.Wait()
		_ = live.end()
	}
	n, _ := spawn(t, dir)
	events := n.log("alice", "lobby")
	for offset, text := range acked {
		if offset > uint64(len(events)) || events[offset-1].GetOffset() != offset || events[offset-1].GetMessage().GetText() != text {
			t.Errorf("%q was acknowledged at %d and is not there", text, offset)
		}
	}
	// And the reader that was live all the time has exactly the log.
	s := n.resume("alice", live.again()).caughtUp()
	s.reach("lobby", uint64(len(events)))
	t.Logf("%d events acknowledged, %d in the log", len(acked), len(events))
}

// Membership and positions survive a kill as well.
func TestP7_MembershipSurvivesKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	n, kill := spawn(t, dir)
	rooms := names("room", 20)
	n.join("alice", rooms...)
	n.join("bob", rooms...)
	s := n.connect("alice", &reprisev1.OpenRequest{}).caughtUp()
	n.say("bob", "room007", "one")
	n.say("bob", "room008", "two")
	s.reach("room007", 4)
	s.reach("room008", 4)
	s.ack(s.position("room007"))
	s.checkpoint(1)
	kill()
	n, _ = spawn(t, dir)
	back := n.resume("alice", s.keyOnly()).caughtUp()
	if w := back.welcome; w.GetRooms() != 20 || w.GetOutcome() != reprisev1.Outcome_OUTCOME_EXACT || w.GetRoomsChanged() != 1 {
		t.Fatalf("Welcome %v", w)
	}
	if p := back.rooms["room008"]; len(p.texts) != 1 || p.texts[0] != "two" || p.last != 4 {
		t.Fatalf("room008: %q up to %d", p.texts, p.last)
	}
	if back.rooms["room007"] != nil {
		t.Fatal("room007 was acknowledged and is named")
	}
}

// Publishes that were acknowledged before or during a Shutdown are on disk.
func TestP1_AcknowledgedSurvivesShutdown(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	ctx, cancel := context.WithCancel(as(t, "alice"))
	defer cancel()
	var mu sync.Mutex
	acked := make(map[uint64]string)
	started := make(chan struct{})
	begun := sync.OnceFunc(func() { close(started) })
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				text := fmt.Sprintf("%d-%d", w, i)
				out, err := n.SendMessage(ctx, &reprisev1.SendMessageRequest{Room: "lobby", Text: text})
				if err != nil {
					return
				}
				mu.Lock()
				acked[out.GetOffset()] = text
				mu.Unlock()
				if i == 20 {
					begun()
				}
			}
		})
	}
	<-started
	short, done := context.WithTimeout(context.Background(), patience)
	defer done()
	if err := n.srv.Shutdown(short); err != nil {
		t.Fatal(err)
	}
	cancel()
	wg.Wait()
	n.conn.Close()
	<-n.served
	n.start()
	events := n.log("alice", "lobby")
	for offset, text := range acked {
		if offset > uint64(len(events)) || events[offset-1].GetMessage().GetText() != text {
			t.Errorf("%q was acknowledged at %d and is not there", text, offset)
		}
	}
}
