package transcript

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Shell is one bash that runs the steps of a transcript. Use it from one
// goroutine.
type Shell struct {
	cmd    *exec.Cmd
	dir    string // for the scripts of the steps
	stdin  io.WriteCloser
	output *os.File // read end of what every command prints to
	rest   []byte   // printed, and not yet part of a step
	steps  int
}

// Start starts a bash in dir, with env as its environment. Close it.
func Start(dir string, env []string) (_ *Shell, err error) {
	scripts, err := os.MkdirTemp("", "transcript")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(scripts) // the first error counts
		}
	}()
	output, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer write.Close()
	// Not bound to a context: Close ends it, with all that it started.
	cmd := exec.Command("bash", "--noprofile", "--norc") //nolint:noctx // as above
	cmd.Dir, cmd.Env = dir, env
	cmd.Stdout, cmd.Stderr = write, write
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, output.Close())
	}
	return &Shell{cmd: cmd, dir: scripts, stdin: stdin, output: output}, nil
}

// Close kills the shell and everything it started in the background.
func (s *Shell) Close() error {
	err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	_ = s.cmd.Wait() // killed
	return errors.Join(err, s.output.Close(), os.RemoveAll(s.dir))
}

// Run runs commands and returns what they printed and the status of the last
// one. The commands read nothing from standard input. Once the context ended,
// the shell is of no more use.
func (s *Shell) Run(ctx context.Context, commands string) (printed string, status int, err error) {
	// A file, and not the shell's standard input, which a command could read
	// the next line from.
	s.steps++
	script := filepath.Join(s.dir, fmt.Sprintf("step-%d.sh", s.steps))
	if err := os.WriteFile(script, []byte(commands), 0o600); err != nil {
		return "", 0, err
	}
	mark := fmt.Sprintf("\n--- end of step %d, status ", s.steps)
	if _, err := fmt.Fprintf(s.stdin, "source '%s' </dev/null; printf '\\n%s%%d\\n' $?\n", script, mark[1:]); err != nil {
		return "", 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.output.Close() }) // ends the Read below
	defer stop()
	for {
		if before, after, ok := bytes.Cut(s.rest, []byte(mark)); ok {
			if digits, rest, ok := bytes.Cut(after, []byte("\n")); ok {
				status, err = strconv.Atoi(string(digits))
				s.rest = rest
				return string(before), status, err
			}
		}
		buf := make([]byte, 4096)
		n, err := s.output.Read(buf)
		s.rest = append(s.rest, buf[:n]...)
		if err != nil {
			return string(s.rest), 0, fmt.Errorf("%w before the step ended: %w", errors.Join(ctx.Err(), io.ErrUnexpectedEOF), err)
		}
	}
}

// Check runs one step and says what is wrong with what it printed.
func (s *Shell) Check(ctx context.Context, step Step) error {
	printed, status, err := s.Run(ctx, step.Commands)
	if err != nil {
		return fmt.Errorf("%w; printed so far:\n%s", err, indent(printed))
	}
	if step.HasOutput {
		return Match(step.Output, printed)
	}
	if status != 0 {
		return fmt.Errorf("failed with status %d and printed\n%s", status, indent(strings.TrimSpace(printed)))
	}
	return nil
}
