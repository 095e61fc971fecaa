// Package proc starts the servers of a benchmark as processes of their own and
// says what they use.
package proc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// module is the one whose command is measured.
const module = "github.com/reprise-chat/reprise"

// ChildEnv is set for processes that Self starts, so that a test binary can
// tell that it is to be the command.
const ChildEnv = "REPRISE_BENCH_CHILD"

// startWait is how long a server may take to say where it listens.
const startWait = 2 * time.Minute

// Build builds the command reprise into dir and returns its path.
func Build(ctx context.Context, dir string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("where is %s? Run this inside of its bench directory: %w", module, err)
	}
	path := filepath.Join(dir, "reprise")
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "./cmd/reprise") //nolint:gosec // the path is ours
	build.Dir = strings.TrimSpace(string(out))
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/reprise in %s: %w\n%s", build.Dir, err, out)
	}
	return path, nil
}

// RaiseFiles raises the limit of open files to at least n, for this process
// and those that it starts.
func RaiseFiles(n uint64) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	if l.Cur >= n {
		return nil
	}
	l.Cur, l.Max = max(l.Cur, n), max(l.Max, n)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("this benchmark needs %d open files and may not raise the limit: run it as root, or after `ulimit -n %d` in a session whose hard limit allows that: %w", n, n, err)
	}
	return nil
}

// Server is a running server process.
type Server struct {
	// Addr is where it listens.
	Addr netip.AddrPort
	// HTTP is where its metrics are, as "http://host:port"; may be empty.
	HTTP string
	// PProf is where its profiles are, as "http://host:port/debug/pprof/"; may be
	// empty.
	PProf string
	// Took is how long it was from the start of the process until it listened.
	Took time.Duration

	cmd    *exec.Cmd
	stderr *tail
	ended  chan struct{} // closed after Wait has returned
	err    error         // of Wait
}

// Start starts a server, whose first line of output is JSON that says where it
// listens: {"grpc": "host:port", "http": "http://host:port", "pprof": "http://..."}.
func Start(path string, args ...string) (*Server, error) {
	s := &Server{cmd: exec.Command(path, args...), stderr: new(tail), ended: make(chan struct{})} //nolint:gosec,noctx // ended by Stop
	s.cmd.Env = append(os.Environ(), ChildEnv+"=1")
	s.cmd.Stderr = s.stderr
	// A benchmark that dies takes its servers with it.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	line := make(chan []byte, 1)
	go func() {
		defer close(s.ended)
		r := bufio.NewReader(stdout)
		first, _ := r.ReadBytes('\n')
		line <- first
		_, _ = io.Copy(io.Discard, r)
		s.err = s.cmd.Wait()
	}()
	select {
	case first := <-line:
		s.Took = time.Since(began)
		err = s.listens(first)
	case <-time.After(startWait):
		err = errors.New("it does not say where it listens")
	}
	if err != nil {
		s.Kill()
		return nil, fmt.Errorf("%s %s: %w\n%s", path, strings.Join(args, " "), err, s.stderr)
	}
	return s, nil
}

func (s *Server) listens(line []byte) error {
	var says struct{ GRPC, HTTP, PProf string }
	if err := json.Unmarshal(line, &says); err != nil {
		return fmt.Errorf("its first line is %q, not where it listens", line)
	}
	addr, err := netip.ParseAddrPort(says.GRPC)
	s.Addr, s.HTTP, s.PProf = addr, says.HTTP, says.PProf
	return err
}

// Self starts this very program as a server.
func Self(args ...string) (*Server, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return Start(path, args...)
}

// Output runs this very program to its end and decodes the JSON it writes.
func Output(ctx context.Context, into any, args ...string) error {
	path, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // this program
	cmd.Env = append(os.Environ(), ChildEnv+"=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, &stderr)
	}
	return json.Unmarshal(out, into)
}

// Stop asks the server to end, and waits. After a while it is killed.
func (s *Server) Stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // may have ended
	select {
	case <-s.ended:
	case <-time.After(30 * time.Second):
		s.Kill()
		return errors.New("the server did not end within 30 s of SIGTERM")
	}
	if s.err != nil {
		return fmt.Errorf("the server ended with %w\n%s", s.err, s.stderr)
	}
	return nil
}

// Kill ends the server at once, and waits.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // may have ended
	<-s.ended
}

// Alive returns an error, with what the server last said, if it has ended.
func (s *Server) Alive() error {
	select {
	case <-s.ended:
		return fmt.Errorf("the server has ended: %w\n%s", errors.Join(s.err), s.stderr)
	default:
		return nil
	}
}

// Usage is what a process has used so far.
type Usage struct {
	CPU time.Duration
	RSS int64 // bytes, now
	// Mallocs counts objects allocated; 0 if the process does not say.
	Mallocs float64
}

// Usage reads it from /proc and from the server's metrics.
func (s *Server) Usage() (Usage, error) {
	cpu, err := CPU(s.cmd.Process.Pid)
	if err != nil {
		return Usage{}, err
	}
	rss, err := RSS(s.cmd.Process.Pid)
	if err != nil {
		return Usage{}, err
	}
	return Usage{CPU: cpu, RSS: rss, Mallocs: s.metric("go_memstats_mallocs_total")}, nil
}

// RSS returns its resident memory in bytes.
func (s *Server) RSS() (int64, error) { return RSS(s.cmd.Process.Pid) }

// CPU returns the user and system time that a process has used, by the clock
// that the kernel keeps for it: to the nanosecond, and of threads that have
// ended too. (The ticks in /proc/PID/stat are of 10 ms.)
func CPU(pid int) (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED: what the scheduler counts; see clock_getcpuclockid(3)
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &ts); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// RSS returns the resident memory of a process in bytes.
func RSS(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Rss:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/smaps_rollup has no Rss", pid)
}

// Profile returns a CPU profile of the next seconds, as runtime/pprof writes it.
func (s *Server) Profile(ctx context.Context, d time.Duration) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%sprofile?seconds=%d", s.PProf, int(d.Seconds())), nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", request.URL, response.Status)
	}
	return io.ReadAll(response.Body)
}

// metric returns one unlabelled value of the server's metrics, 0 if it is not
// there.
func (s *Server) metric(name string) float64 {
	if s.HTTP == "" {
		return 0
	}
	response, err := http.Get(s.HTTP + "/metrics") //nolint:noctx // on loopback
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			f, _ := strconv.ParseFloat(v, 64) // 0 if it is none
			return f
		}
	}
	return 0
}

// tail keeps the end of what a process writes.
type tail struct {
	mu sync.Mutex
	b  []byte
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	const most = 8 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if n := len(t.b) - most; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
