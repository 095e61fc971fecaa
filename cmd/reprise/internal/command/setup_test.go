package command

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
)

// TestMain lets the test binary stand in for the command: what a test starts
// as a process of its own is this binary with the variable set.
func TestMain(m *testing.M) {
	if os.Getenv("REPRISE_TEST_COMMAND") != "" {
		os.Exit(Run(context.Background(), os.Args[1:], System()))
	}
	os.Exit(m.Run())
}

// patience bounds every wait. What takes this long does not come.
const patience = 30 * time.Second

// command returns the command as a process that is not started yet. It knows
// nothing of the environment but what env says.
func command(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append([]string{"REPRISE_TEST_COMMAND=1", "USER=alice"}, env...)
	cmd.Dir = t.TempDir()
	return cmd
}

// process is a command that runs.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *bufio.Reader
	errs *buffer
	done chan struct{} // closed after it has ended
}

func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, errs: &buffer{}, done: make(chan struct{})}
	out, write := io.Pipe()
	p.out = bufio.NewReader(out)
	cmd.Stdout, cmd.Stderr = write, p.errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // the tests look at ProcessState
		write.Close()
	}()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("standard error of %v:\n%s", cmd.Args[1:], p.errs)
		}
		_ = cmd.Process.Kill() // it may have ended
		go io.Copy(io.Discard, out)
		<-p.done
	})
	return p
}

// line reads a line of standard output.
func (p *process) line() string {
	p.t.Helper()
	type result struct {
		text string
		err  error
	}
	read := make(chan result, 1)
	go func() {
		text, err := p.out.ReadString('\n')
		read <- result{text, err}
	}()
	select {
	case r := <-read:
		if r.err != nil {
			p.t.Fatalf("no line came: %v\n%s", r.err, p.errs)
		}
		return strings.TrimSuffix(r.text, "\n")
	case <-time.After(patience):
		p.t.Fatal("no line came")
		return ""
	}
}

// end waits for the end of the process and returns its exit code.
func (p *process) end() int {
	p.t.Helper()
	go io.Copy(io.Discard, p.out)
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatal("the process does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// host is a server in a process of its own.
type host struct {
	*process
	GRPC  string `json:"grpc"`
	HTTP  string `json:"http"`
	PProf string `json:"pprof"`
	Dir   string `json:"dir"`
}

// serveIn starts a server on the data directory; addr may be "" for any port.
func serveIn(t *testing.T, dir, addr string, args ...string) *host {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	args = append([]string{"serve", "--dir", dir, "--addr", addr, "--http", "127.0.0.1:0", "--json"}, args...)
	h := &host{process: start(t, command(t, nil, args...))}
	if err := json.Unmarshal([]byte(h.line()), h); err != nil {
		t.Fatal(err)
	}
	return h
}

// person is somebody at a shell: a name, a server and a home.
type person struct {
	t    *testing.T
	name string
	addr string
	home string
}

func newPerson(t *testing.T, name, addr string) person {
	t.Helper()
	return person{t: t, name: name, addr: addr, home: t.TempDir()}
}

func (p person) env() map[string]string {
	return map[string]string{"USER": p.name, "REPRISE_SERVER": p.addr, "XDG_STATE_HOME": p.home}
}

// result is what a command line came to.
type result struct {
	code     int
	out, err string
}

// run runs a command line in this process.
func (p person) run(in string, args ...string) result {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	return runWith(ctx, p.env(), in, args...)
}

func runWith(ctx context.Context, env map[string]string, in string, args ...string) result {
	var out, errs bytes.Buffer
	std := Streams{In: strings.NewReader(in), Out: &out, Err: &errs, Getenv: func(name string) string { return env[name] }}
	code := Run(ctx, args, std)
	return result{code, out.String(), errs.String()}
}

// ok runs a command line that must succeed and returns what it printed.
func (p person) ok(in string, args ...string) string {
	p.t.Helper()
	r := p.run(in, args...)
	if r.code != exitOK {
		p.t.Fatalf("%v: exit code %d\n%s%s", args, r.code, r.out, r.err)
	}
	return r.out
}

// objects reads one JSON object a line.
func objects[T any](t *testing.T, out string) []T {
	t.Helper()
	var all []T
	decoder := json.NewDecoder(strings.NewReader(out))
	for {
		var v T
		err := decoder.Decode(&v)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		all = append(all, v)
	}
}

// buffer is a buffer that is written and read at the same time.
type buffer struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	written chan struct{} // closed and replaced at each write; nil while nobody waits
}

// await returns when text has been written, whatever colours it has.
func (b *buffer) await(t *testing.T, text string) {
	t.Helper()
	timeout := time.After(patience)
	for {
		b.mu.Lock()
		if strings.Contains(ansi.Strip(b.buf.String()), text) {
			b.mu.Unlock()
			return
		}
		if b.written == nil {
			b.written = make(chan struct{})
		}
		written := b.written
		b.mu.Unlock()
		select {
		case <-written:
		case <-timeout:
			t.Fatalf("%q was not written, but\n%s", text, b)
		}
	}
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.written != nil {
		close(b.written)
		b.written = nil
	}
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
