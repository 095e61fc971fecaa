package command

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestServeAnnounces(t *testing.T) {
	dir := t.TempDir()
	p := start(t, command(t, []string{"REPRISE_ADDR=127.0.0.1:0", "REPRISE_HTTP=127.0.0.1:0", "REPRISE_DIR=" + dir}))
	var text string
	for !strings.Contains(text, "Ctrl-C ends it") {
		text += p.line() + "\n"
	}
	for _, want := range []string{"gRPC      127.0.0.1:", "browsers  http://127.0.0.1:", "data      " + dir, "chat lobby", "grpcurl"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != exitOK {
		t.Error("exit code ", code)
	}
	if log := p.errs.String(); !strings.Contains(log, `"msg":"drained"`) {
		t.Errorf("the log, which is no terminal, is\n%s", log)
	}
}

func TestServeBothDoors(t *testing.T) {
	h := serveIn(t, t.TempDir(), "")
	newPerson(t, "alice", h.GRPC).ok("", "rooms")
	response, err := http.Get(h.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Error(response.Status)
	}
}

// TestServeProfiles looks at a server's profiles, and at what a page could that
// has a name of its own lead to this machine.
func TestServeProfiles(t *testing.T) {
	if h := serveIn(t, t.TempDir(), ""); h.PProf != "" {
		t.Error("profiles are served unasked at ", h.PProf)
	}
	h := serveIn(t, t.TempDir(), "", "--pprof", "127.0.0.1:0")
	for _, c := range []struct {
		host, profile string
		want          int
	}{
		{profile: "heap?debug=1", want: http.StatusOK},
		{profile: "profile?seconds=1", want: http.StatusOK},
		{host: "localhost:6060", profile: "goroutine", want: http.StatusOK},
		{host: "attacker.example", profile: "heap", want: http.StatusForbidden},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.PProf+c.profile, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = c.host
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != c.want || len(body) == 0 {
			t.Errorf("%s as %q: %s, %d bytes, %v", c.profile, c.host, response.Status, len(body), err)
		}
	}
	h.signal(syscall.SIGTERM)
	if code := h.end(); code != exitOK {
		t.Error("exit code ", code)
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	dir := t.TempDir()
	h := serveIn(t, dir, "")
	second := start(t, command(t, nil, "serve", "--dir", dir, "--addr", "127.0.0.1:0", "--http", "127.0.0.1:0"))
	if code := second.end(); code != exitFailure {
		t.Error("exit code ", code)
	}
	if got := second.errs.String(); !strings.Contains(got, "another server uses the data directory "+dir) || !strings.Contains(got, "--dir") {
		t.Errorf("it says\n%s", got)
	}
	third := start(t, command(t, nil, "serve", "--dir", t.TempDir(), "--addr", h.GRPC, "--http", "127.0.0.1:0"))
	if code := third.end(); code != exitFailure {
		t.Error("exit code ", code)
	}
	if got := third.errs.String(); !strings.Contains(got, h.GRPC+" is taken") || !strings.Contains(got, "--addr") {
		t.Errorf("it says\n%s", got)
	}
}

// TestDrainEndsInTime has a client that reads nothing and ignores everything.
func TestDrainEndsInTime(t *testing.T) {
	h := serveIn(t, t.TempDir(), "", "--drain-timeout", "1s")
	ignore(t, h.GRPC)
	began := time.Now()
	h.signal(syscall.SIGINT)
	if code := h.end(); code != exitOK {
		t.Error("exit code ", code)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Error("it took ", took)
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	h := serveIn(t, t.TempDir(), "", "--drain-timeout", "1h")
	ignore(t, h.GRPC)
	h.signal(syscall.SIGINT)
	h.errs.await(t, "draining")
	h.signal(syscall.SIGINT)
	if code := h.end(); code != exitFailure {
		t.Error("exit code ", code)
	}
}

// TestHangupDrains closes the terminal of a server: its clients are told, and
// it ends as after Ctrl-C. One that nohup started stays.
func TestHangupDrains(t *testing.T) {
	// What this process handles its children start with as the default, even
	// when the tests themselves were started by nohup.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	h := serveIn(t, t.TempDir(), "")
	h.signal(syscall.SIGHUP)
	if code := h.end(); code != exitOK {
		t.Error("exit code ", code)
	}
	if log := h.errs.String(); !strings.Contains(log, `"msg":"drained"`) {
		t.Errorf("the log is\n%s", log)
	}

	cmd := command(t, nil, "serve", "--dir", t.TempDir(), "--addr", "127.0.0.1:0", "--http", "127.0.0.1:0", "--json")
	cmd.Args = append([]string{"nohup", cmd.Path}, cmd.Args[1:]...)
	var err error
	if cmd.Path, err = exec.LookPath("nohup"); err != nil {
		t.Skip("needs nohup: ", err)
	}
	h = &host{process: start(t, cmd)}
	if err := json.Unmarshal([]byte(h.line()), h); err != nil {
		t.Fatal(err)
	}
	h.signal(syscall.SIGHUP)
	newPerson(t, "alice", h.GRPC).ok("", "send", "lobby", "still here")
	h.signal(syscall.SIGTERM)
	if code := h.end(); code != exitOK {
		t.Error("exit code ", code)
	}
}
