package robustness

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// startTimeout bounds how long a server takes to serve, recovery included.
const startTimeout = 30 * time.Second

// binaries are the builds of the command, by build tags, made once for each
// test binary in a directory that TestMain removes.
var binaries struct {
	sync.Mutex
	dir   string
	built map[string]string
}

// binaryEnv names the command to a test that mustNotice runs: no need to build
// it again.
const binaryEnv = "REPRISE_BINARY"

func TestMain(m *testing.M) {
	code := m.Run()
	if binaries.dir != "" {
		os.RemoveAll(binaries.dir)
	}
	os.Exit(code)
}

// binary returns the path of the command, built with tags (may be empty).
func binary(t testing.TB, tags string) string {
	t.Helper()
	if path := os.Getenv(binaryEnv); path != "" {
		return path
	}
	binaries.Lock()
	defer binaries.Unlock()
	if path := binaries.built[tags]; path != "" {
		return path
	}
	if binaries.dir == "" {
		dir, err := os.MkdirTemp("", "reprise-robustness-") //nolint:usetesting // it outlives the test that is first
		if err != nil {
			t.Fatal(err)
		}
		binaries.dir, binaries.built = dir, make(map[string]string)
	}
	path := filepath.Join(binaries.dir, "reprise-"+tags)
	build := exec.Command("go", "build", "-tags", tags, "-o", path, "../../cmd/reprise")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	binaries.built[tags] = path
	return path
}

// process is the real server over one data directory. Its methods are for the
// test's goroutine; only output may be used beside them.
type process struct {
	t testing.TB

	// Before the first start these may be changed.
	binary string
	dir    string   // of the data
	grpc   string   // address
	http   string   // address
	prefix []string // arguments before those of the command, if binary runs it
	args   []string // further flags of serve

	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	output *output
}

// newProcess returns a server that is not started, on two free addresses and
// with a data directory that the test removes. Tags are build tags: "faults"
// for failpoints, or "". At the end of the test the process is killed.
func newProcess(t testing.TB, tags string) *process {
	t.Helper()
	p := &process{
		t: t, binary: binary(t, tags), dir: filepath.Join(t.TempDir(), "data"),
		grpc: freeAddress(t), http: freeAddress(t), output: new(output),
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the server's last words:\n%s", p.output)
		}
	})
	return p
}

// freeAddress returns an address that was free a moment ago. It is not of the
// range that outgoing connections get theirs from, so that while the server is
// down nobody else comes to have it.
func freeAddress(t testing.TB) string {
	t.Helper()
	for port := 20_000 + os.Getpid()*64%11_000; port < 32_000; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		l.Close()
		address := l.Addr().String()
		if _, taken := addresses.LoadOrStore(address, true); !taken {
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

var addresses sync.Map // given to a process of this test binary

// start starts the server and waits until it serves. Env is added to its
// environment, as "NAME=value".
func (p *process) start(env ...string) {
	p.t.Helper()
	p.begin(env...)
	if !p.serving() {
		p.t.Fatalf("the server does not serve:\n%s", p.output)
	}
}

// begin starts the server without waiting.
func (p *process) begin(env ...string) {
	p.t.Helper()
	if p.cmd != nil {
		p.t.Fatal("the server is running")
	}
	fmt.Fprintf(p.output, "%s%v\n", lifeMark, env)
	args := append(append(append([]string(nil), p.prefix...), "serve", "--addr", p.grpc, "--http", p.http, "--dir", p.dir), p.args...)
	cmd := exec.Command(p.binary, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = p.output, p.output
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	p.cmd, p.exited = cmd, exited
}

// serving waits until the server answers; false if it ended, or does not in
// time.
func (p *process) serving() bool {
	p.t.Helper()
	conn, err := grpc.NewClient(p.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for ctx.Err() == nil {
		if _, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err == nil {
			return true
		}
		conn.ResetConnectBackoff()
		select {
		case <-p.exited:
			return false
		case <-time.After(5 * time.Millisecond): // a server that starts has no way to say so but its answer
		}
	}
	return false
}

func (p *process) signal(s syscall.Signal) {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(s)
	}
}

// kill ends the server with SIGKILL and waits for its end. It may be called
// when the server has ended.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	p.signal(syscall.SIGKILL)
	<-p.exited
	p.cmd = nil
}

// stop drains the server with SIGTERM and waits for its end, which must be
// with exit status 0.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	status, ok := p.wait(startTimeout)
	if !ok || status.ExitStatus() != 0 {
		p.t.Errorf("after SIGTERM the server ended with %v (in time: %v)\n%s", status, ok, p.output)
		p.kill()
	}
}

// pause stops the server with SIGSTOP and waits until none of its threads runs
// or is in a system call, which takes a while on a busy machine. It may be
// called when the server has ended. resume lets it go on.
func (p *process) pause() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	deadline := time.Now().Add(startTimeout)
	for p.cmd != nil && !stopped(p.pid()) {
		select {
		case <-p.exited:
			return
		case <-time.After(100 * time.Microsecond): // nothing tells of it but /proc
		}
		if time.Now().After(deadline) {
			p.t.Fatal("the server does not stop")
		}
	}
}

func (p *process) resume() { p.signal(syscall.SIGCONT) }

// stopped reports whether all threads of a process are.
func stopped(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return false
	}
	for _, path := range threads {
		b, err := os.ReadFile(path)
		if err != nil {
			return false // it has ended meanwhile: look again
		}
		// The state follows the name, which is in parentheses and may have any.
		_, rest, _ := strings.Cut(string(b[bytes.LastIndexByte(b, ')')+1:]), " ")
		if !strings.HasPrefix(rest, "T") && !strings.HasPrefix(rest, "Z") {
			return false
		}
	}
	return true
}

// wait waits until the server has ended by itself and returns how. Ok is false
// if it has not within d; then it still runs.
func (p *process) wait(d time.Duration) (status syscall.WaitStatus, ok bool) {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(d):
		return 0, false
	}
	status, _ = p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	p.cmd = nil
	return status, true
}

// pid returns the server's process id.
func (p *process) pid() int { return p.cmd.Process.Pid }

// rss returns the resident memory of the server in bytes.
func (p *process) rss() uint64 { return rssOf(p.t, p.pid()) }

func rssOf(t testing.TB, pid int) uint64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseUint(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * uint64(os.Getpagesize())
}

// fds returns how many descriptors a process has open.
func fdsOf(t testing.TB, pid int) int {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

// metrics returns what /metrics says, by name with labels, as
// `reprise_gaps_total{reason="RETENTION"}`.
func (p *process) metrics() map[string]float64 {
	p.t.Helper()
	response, err := http.Get("http://" + p.http + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	values := make(map[string]float64)
	for in := bufio.NewScanner(response.Body); in.Scan(); {
		line := in.Text()
		i := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || i < 0 {
			continue
		}
		if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			values[line[:i]] = v
		}
	}
	if len(values) == 0 {
		p.t.Fatalf("no metrics: status %s", response.Status)
	}
	return values
}

// goroutines returns how many goroutines the server has.
func (p *process) goroutines() int { return int(p.metrics()["go_goroutines"]) }

// run runs another command of the binary, as "check", DIR, and returns what it
// printed.
func (p *process) run(args ...string) (out string, err error) { return p.runFor(time.Minute, args...) }

// runFor is run for at most d.
func (p *process) runFor(d time.Duration, args ...string) (out string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	b, err := exec.CommandContext(ctx, p.binary, args...).CombinedOutput()
	return string(b), errors.Join(err, ctx.Err())
}

// output is the last of what a process printed.
type output struct {
	mu sync.Mutex
	b  []byte
}

const outputBytes = 32 << 10

// lifeMark stands before what each life of a process prints.
const lifeMark = "=== started with "

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b = append(o.b, p...)
	if len(o.b) > 2*outputBytes {
		o.b = bytes.Clone(o.b[len(o.b)-outputBytes:])
	}
	return len(p), nil
}

// life returns what was printed since the last start.
func (o *output) life() string {
	all := o.String()
	return all[strings.LastIndex(all, lifeMark)+len(lifeMark):]
}

// String returns what there is.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.b)
}
