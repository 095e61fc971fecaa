package command

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// authority is a certificate for this machine that vouches for itself, and the
// file that it is in.
func authority(t *testing.T) (cert tls.Certificate, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// terminate is what stands before a server that is reached over TLS: it passes
// on to address what it decrypts.
func terminate(t *testing.T, address string, cert tls.Certificate) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{cert},
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { relay(t, in, address) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

func relay(t *testing.T, in net.Conn, address string) {
	out, err := net.Dial("tcp", address)
	if err != nil {
		t.Error(err)
		in.Close()
		return
	}
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
		wg.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // until either side closes
			in.Close()
			out.Close()
		})
	}
	wg.Wait()
}

func TestTLS(t *testing.T) {
	h := serveIn(t, t.TempDir(), "")
	cert, file := authority(t)
	_, other := authority(t)
	alice := newPerson(t, "alice", terminate(t, h.GRPC, cert))
	alice.ok("", "send", "lobby", "it is sealed", "--ca-cert", file)
	if out := alice.ok("", "tail", "lobby", "--ca-cert", file); !strings.Contains(out, "it is sealed") {
		t.Error(out)
	}
	if out := alice.ok("said in chat\n", "chat", "lobby", "--ca-cert", file); !strings.Contains(out, "said in chat") {
		t.Error(out)
	}
	for want, args := range map[string][]string{
		"is not to be trusted: x509: certificate signed by unknown authority": {"--ca-cert", other},
		"--plaintext uses no certificates":                                    {"--ca-cert", file, "--plaintext"},
		"there is no certificate in " + os.Args[0]:                            {"--ca-cert", os.Args[0]},
		"no such file": {"--ca-cert", file + ".not"},
		"does not speak TLS\nIf you trust the network in between, say --plaintext.": {"--server", h.GRPC, "--ca-cert", file},
	} {
		r := alice.run("", append([]string{"rooms"}, args...)...)
		if r.code != exitFailure || !strings.Contains(r.err, want) {
			t.Errorf("%v: no %q: exit code %d\n%s%s", args, want, r.code, r.out, r.err)
		}
	}
}

// TestTLSByDefault: a token does not go to another machine in the clear unless
// somebody says so.
func TestTLSByDefault(t *testing.T) {
	for _, c := range []struct {
		flags  clientFlags
		secure bool
	}{
		{clientFlags{servers: []string{"127.0.0.1:9090", "localhost:9090", "[::1]:9090"}}, false},
		{clientFlags{servers: []string{"127.0.0.1:9090", "chat.example.com:443"}}, true},
		{clientFlags{servers: []string{"192.0.2.1:9090"}}, true},
		{clientFlags{servers: []string{"192.0.2.1:9090"}, plaintext: true}, false},
	} {
		c.flags.user, c.flags.timeout = "alice", time.Second
		cfg, err := c.flags.config()
		if err != nil || (cfg.TLS != nil) != c.secure || cfg.Insecure != c.flags.plaintext {
			t.Errorf("%+v: TLS %v, insecure %t, %v", c.flags, cfg.TLS != nil, cfg.Insecure, err)
		}
	}
	if _, err := new(clientFlags).config(); err == nil {
		t.Error("no server, and no error")
	}
}

// TestSeveralServers: one of those that are named answers.
func TestSeveralServers(t *testing.T) {
	h := serveIn(t, t.TempDir(), "")
	alice := newPerson(t, "alice", "127.0.0.1:1,"+h.GRPC)
	alice.ok("", "send", "lobby", "somebody is there")
	if out := alice.ok("", "tail", "lobby"); !strings.Contains(out, "somebody is there") {
		t.Error(out)
	}
	r := newPerson(t, "alice", "127.0.0.1:1,127.0.0.1:2").run("", "rooms")
	if r.code != exitFailure || !strings.Contains(r.err, "no server answers at 127.0.0.1:1, 127.0.0.1:2") {
		t.Errorf("exit code %d\n%s", r.code, r.err)
	}
}
