package conversation

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// process is the real server command over one data directory.
type process struct {
	t      *testing.T
	binary string
	dir    string
	grpc   string
	http   string
	cmd    *exec.Cmd
	output bytes.Buffer
}

// newProcess builds the command and chooses addresses. The server listens on
// 127.0.0.2, so that a proxy for the page can have the same port on 127.0.0.1,
// which is a name that the server knows itself by.
func newProcess(t *testing.T) *process {
	t.Helper()
	dir := t.TempDir()
	p := &process{
		t: t, binary: filepath.Join(dir, "reprise"), dir: filepath.Join(dir, "data"),
		grpc: freeAddress(t, "127.0.0.2:0"), http: freeAddress(t, "127.0.0.2:0"),
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", p.binary, "../../cmd/reprise")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("server:\n%s", p.output.Bytes())
		}
	})
	return p
}

func freeAddress(t *testing.T, listen string) string {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start starts the server and waits until it serves.
func (p *process) start() {
	p.t.Helper()
	p.cmd = exec.Command(p.binary, "serve", "--addr", p.grpc, "--http", p.http, "--dir", p.dir)
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	conn := dial(p.t, p.grpc)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil {
		p.t.Fatalf("the server does not serve: %v\n%s", err, p.output.Bytes())
	}
}

// kill ends the server with SIGKILL.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(os.Kill)
	_ = p.cmd.Wait()
	p.cmd = nil
}

func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}
