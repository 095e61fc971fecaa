package transcript

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reprise-chat/reprise/server"
)

// examplePatience bounds every wait for what the example prints.
const examplePatience = time.Minute

// The README's Go example is the program in testdata/example, which compiles.
func TestREADMEExample(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("testdata/example/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "```go\n"+string(program)+"```\n") {
		t.Error("the README's Go example is not testdata/example/main.go: make them the same")
	}
	vet := exec.CommandContext(t.Context(), "go", "vet", "./testdata/example")
	if out, err := vet.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// The README's Go example does what the README says: the first time and the
// second, and when there is no server.
func TestREADMEExampleRuns(t *testing.T) {
	address := "127.0.0.1:0"
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	l.Close() // nobody listens
	program := buildExample(t, address)

	e := startExample(t, program)
	e.expect(e.errors, "cannot reach "+address+", retrying in ")
	e.expect(e.output, "-- waiting until ")
	serveExample(t, address)
	e.expect(e.output, "-- live", "lobby/1 gopher created the room", "lobby/2 gopher joined", "lobby/3 gopher: hello from Go")
	e.end()

	e = startExample(t, program)
	e.expect(e.output, "-- live", "lobby/3 gopher: hello from Go", "lobby/4 gopher: hello from Go")
	e.end()
}

// buildExample builds the example for a server at another address.
func buildExample(t *testing.T, address string) string {
	t.Helper()
	source, err := os.ReadFile("testdata/example/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(source, []byte("127.0.0.1:9090")) {
		t.Fatal("the example does not name the default address")
	}
	dir := t.TempDir()
	file, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "example")
	if err := os.WriteFile(file, bytes.ReplaceAll(source, []byte("127.0.0.1:9090"), []byte(address)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

func serveExample(t *testing.T, address string) {
	t.Helper()
	s, err := server.New(server.Options{
		Dir: filepath.Join(t.TempDir(), "data"), DiskReserve: -1, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	var listeners [2]net.Listener
	for i, a := range []string{address, "127.0.0.1:0"} {
		if listeners[i], err = net.Listen("tcp", a); err != nil {
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
}

// running is the example while it runs.
type running struct {
	t              *testing.T
	cmd            *exec.Cmd
	output, errors chan string // lines
}

func startExample(t *testing.T, program string) *running {
	t.Helper()
	r := &running{t: t, cmd: exec.CommandContext(t.Context(), program), output: make(chan string, 1024), errors: make(chan string, 1024)}
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go scan(stdout, r.output)
	go scan(stderr, r.errors)
	return r
}

func scan(in io.Reader, out chan<- string) {
	defer close(out)
	for s := bufio.NewScanner(in); s.Scan(); {
		out <- s.Text()
	}
}

// expect waits for lines that contain each of what is wanted, in any order,
// and for no empty one.
func (r *running) expect(from <-chan string, wanted ...string) {
	r.t.Helper()
	for end := time.After(examplePatience); len(wanted) > 0; {
		select {
		case line, ok := <-from:
			if !ok {
				r.t.Fatalf("the example has ended, and these lines are missing: %q", wanted)
			}
			if strings.TrimSpace(line) == "" {
				r.t.Error("an empty line")
			}
			wanted = slices.DeleteFunc(wanted, func(w string) bool { return strings.Contains(line, w) })
		case <-end:
			r.t.Fatalf("these lines do not come: %q", wanted)
		}
	}
}

// end interrupts the example, as a person does, which is to end well.
func (r *running) end() {
	r.t.Helper()
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		r.t.Error(err)
	}
	for out := r.output; out != nil; {
		if _, ok := <-out; !ok {
			out = nil
		}
	}
	if err := r.cmd.Wait(); err != nil {
		r.t.Errorf("after an interrupt the example ended with %v", err)
	}
}
