package proc

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCPU burns CPU in this process and must see it, and no more than there
// was time for.
func TestCPU(t *testing.T) {
	from, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	var own, ownAfter syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		t.Fatal(err)
	}
	used := func() time.Duration {
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ownAfter); err != nil {
			t.Fatal(err)
		}
		return time.Duration(ownAfter.Utime.Nano() + ownAfter.Stime.Nano() - own.Utime.Nano() - own.Stime.Nano())
	}
	for n := 0; used() < 100*time.Millisecond; n++ {
		_ = strings.Repeat("x", n%1000)
	}
	to, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if d := to - from; d < 80*time.Millisecond || d > used()+50*time.Millisecond {
		t.Errorf("%v by the clock, %v by getrusage", d, used())
	}
	if _, err := CPU(1 << 22); err == nil {
		t.Error("CPU time of a process that is not there")
	}
}

func TestRSS(t *testing.T) {
	const size = 64 << 20
	from, err := RSS(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	for i := range b {
		b[i] = 1
	}
	to, err := RSS(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if b[0] != 1 || to-from < size*9/10 || to-from > size*2 {
		t.Errorf("64 MiB more are %d bytes more", to-from)
	}
}

func TestServerThatSaysNothing(t *testing.T) {
	_, err := Start("/bin/sh", "-c", "echo this is wrong >&2; echo hello")
	if err == nil || !strings.Contains(err.Error(), "this is wrong") || !strings.Contains(err.Error(), "hello") {
		t.Error("a server that does not say where it listens: ", err)
	}
	if _, err := Start("/nonexistent"); err == nil {
		t.Error("a server that is not there was started")
	}
}

// TestStop: a server that ends with an error says so, one that does not is
// only ended.
func TestStop(t *testing.T) {
	const says = `echo '{"grpc":"127.0.0.1:1","http":""}'; `
	s, err := Start("/bin/sh", "-c", "trap 'exit 3' TERM; "+says+"while true; do sleep 0.01; done")
	if err != nil {
		t.Fatal(err)
	}
	if s.Addr.Port() != 1 {
		t.Error("it listens on ", s.Addr)
	}
	if err := s.Alive(); err != nil {
		t.Error(err)
	}
	if err := s.Stop(); err == nil || !strings.Contains(err.Error(), "3") {
		t.Error("a server that ended with status 3: ", err)
	}
	if s.Alive() == nil {
		t.Error("it has ended and is called alive")
	}
}
