package gosdk

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	reprise "github.com/reprise-chat/reprise/client"
)

// middle is what lies between a client and its server: it passes everything
// on, or gives answers of its own.
type middle struct {
	net.Listener
	server  string
	answers atomic.Int64 // of its own, so far

	mu     sync.Mutex
	answer func(net.Conn) // nil: passes on
	conns  []net.Conn
}

func newMiddle(t *testing.T, server string) *middle {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &middle{Listener: l, server: server}
	t.Cleanup(func() { l.Close(); m.set(nil) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go m.serve(c)
		}
	}()
	return m
}

// set changes what is done with connections; those there are break.
func (m *middle) set(answer func(net.Conn)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answer = answer
	for _, c := range m.conns {
		c.Close()
	}
	m.conns = nil
}

func (m *middle) serve(c net.Conn) {
	m.mu.Lock()
	answer := m.answer
	m.conns = append(m.conns, c)
	m.mu.Unlock()
	defer c.Close()
	if answer != nil {
		answer(c)
		return
	}
	m.pass(c)
}

func (m *middle) pass(c net.Conn) {
	s, err := net.Dial("tcp", m.server)
	if err != nil {
		return
	}
	go func() { _, _ = io.Copy(s, c); s.Close() }()
	_, _ = io.Copy(c, s)
}

// http2 answers requests as an HTTP/2 server of its own.
func (m *middle) http2(handler http.HandlerFunc) func(net.Conn) {
	return func(c net.Conn) {
		one := &oneConn{c: c, done: make(chan struct{})}
		server := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			m.answers.Add(1)
			handler(w, r)
		}), ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				one.Close()
			}
		}, ReadHeaderTimeout: patience}
		server.Protocols.SetUnencryptedHTTP2(true)
		server.Protocols.SetHTTP1(true)
		_ = server.Serve(one)
	}
}

// oneConn is a listener of one connection.
type oneConn struct {
	c    net.Conn
	once sync.Once
	got  sync.Once
	done chan struct{}
}

func (l *oneConn) Accept() (c net.Conn, err error) {
	l.got.Do(func() { c = l.c })
	if c != nil {
		return c, nil
	}
	<-l.done
	return nil, net.ErrClosed
}
func (l *oneConn) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *oneConn) Addr() net.Addr { return l.c.LocalAddr() }

// page answers as proxies and captive portals do.
func page(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		if status/100 == 3 {
			w.Header().Set("Location", "http://login.example/")
		}
		w.WriteHeader(status)
		if status != http.StatusNoContent && status != http.StatusNotModified {
			_, _ = io.WriteString(w, body)
		}
	}
}

// grpcStatus answers as a gRPC server that is not Reprise.
func grpcStatus(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
		w.WriteHeader(http.StatusOK)
		_, _ = io.WriteString(w, body)
		w.Header().Set("Grpc-Status", fmt.Sprint(code))
		w.Header().Set("Grpc-Message", "from somebody else")
	}
}

// An answer that is not the server's ends nothing: everything goes on when the
// way to the server is free again.
func TestAnswersThatAreNotOurs(t *testing.T) {
	n := serve(t)
	const html = "<html><title>Log in</title></html>"
	answers := map[string]func(*middle) func(net.Conn){
		"a page of HTTP/1.1": func(m *middle) func(net.Conn) {
			return func(c net.Conn) {
				m.answers.Add(1)
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s", len(html), html)
			}
		},
		"nothing": func(m *middle) func(net.Conn) { return func(net.Conn) { m.answers.Add(1) } },
		"garbage": func(m *middle) func(net.Conn) {
			return func(c net.Conn) { m.answers.Add(1); _, _ = c.Write([]byte("\x16\x03\x01\xff")) }
		},
		"no trailers":      func(m *middle) func(net.Conn) { return m.http2(page(200, "application/grpc", "")) },
		"JSON":             func(m *middle) func(net.Conn) { return m.http2(page(403, "application/json", `{"error":"denied"}`)) },
		"no type":          func(m *middle) func(net.Conn) { return m.http2(page(200, "", html)) },
		"an empty message": func(m *middle) func(net.Conn) { return m.http2(grpcStatus(0, "\x00\x00\x00\x00\x00")) },
		"half a message":   func(m *middle) func(net.Conn) { return m.http2(grpcStatus(0, "\x00\x00\x00\x00\x09ab")) },
	}
	for _, status := range []int{200, 204, 301, 302, 304, 400, 401, 403, 404, 405, 407, 408, 413, 415, 421, 429, 431, 451, 500, 501, 502, 503, 504, 511} {
		answers[fmt.Sprint("HTTP ", status)] = func(m *middle) func(net.Conn) { return m.http2(page(status, "text/html", html)) }
	}
	for code := range 17 {
		answers[fmt.Sprint("gRPC status ", code)] = func(m *middle) func(net.Conn) { return m.http2(grpcStatus(code, "")) }
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) { t.Parallel(); goesOn(t, n, answer) })
	}
}

// goesOn has something else answer while a client is attached, and while it and
// another one that is not ask for things.
func goesOn(t *testing.T, n *node, answer func(*middle) func(net.Conn)) {
	m := newMiddle(t, n.addr)
	var told atomic.Bool
	cfg := config(m.Addr().String(), "ann")
	cfg.OnState = func(s reprise.State) {
		if s.Phase == reprise.Waiting && s.Err != nil {
			told.Store(true)
		}
	}
	room := "r-" + strings.ReplaceAll(strings.ToLower(t.Name()[strings.LastIndexByte(t.Name(), '/')+1:]), "/", "-")
	cfg.Rooms = []string{room}
	attached, other := newClient(t, cfg), newClient(t, config(m.Addr().String(), "ben"))
	l := newListener()
	ended := run(t, attached, l)
	ctx := withPatience(t)
	if _, err := attached.Send(ctx, room, "before"); err != nil {
		t.Fatal(err)
	}
	l.expect(t, "before")

	m.set(answer(m))
	var calls sync.WaitGroup
	for what, call := range map[string]func() error{
		"Send":   func() error { _, err := attached.Send(ctx, room, "during"); return err },
		"Join":   func() error { _, err := other.Join(ctx, room, 0); return err },
		"Create": func() error { _, err := other.Create(ctx, room+"-2", reprise.CreateOptions{}); return err },
		"Join and Send": func() error {
			if _, err := other.Join(ctx, room+"-3", 0); err != nil {
				return err
			}
			_, err := other.Send(ctx, room+"-3", "alone")
			return err
		},
	} {
		calls.Go(func() {
			if err := call(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	until(t, "it was tried several times", func() bool { return m.answers.Load() >= 8 && told.Load() })
	select {
	case err := <-ended:
		ended <- err
		t.Errorf("Run ended with %v", err)
	default:
	}
	m.set(nil)
	calls.Wait()
	l.expect(t, "during")
	until(t, "live again", func() bool { return attached.State().Phase == reprise.Live })
}

// A certificate that is not trusted may be that of a network that intercepts
// TLS: it is told, and tried again.
func TestInterceptedTLS(t *testing.T) {
	n := serve(t)
	m := newMiddle(t, n.addr)
	ours, theirs := certificate(t), certificate(t)
	trust := x509.NewCertPool()
	trust.AddCert(ours.Leaf)
	present := func(c tls.Certificate, then func(net.Conn)) func(net.Conn) {
		return func(raw net.Conn) {
			secure := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{c}, NextProtos: []string{"h2"}})
			if secure.Handshake() == nil {
				then(secure)
			}
			m.answers.Add(1)
		}
	}
	m.set(present(theirs, func(net.Conn) {}))
	cfg := config(m.Addr().String(), "ann")
	cfg.TLS = &tls.Config{RootCAs: trust}
	cfg.Rooms = []string{"lobby"}
	var said atomic.Value
	cfg.OnState = func(s reprise.State) {
		if s.Phase == reprise.Waiting && s.Err != nil {
			said.Store(s.Err.Error())
		}
	}
	c := newClient(t, cfg)
	l := newListener()
	run(t, c, l)
	until(t, "the state tells of the certificate", func() bool {
		s, _ := said.Load().(string)
		return strings.Contains(s, "x509") && m.answers.Load() >= 5
	})
	m.set(present(ours, m.pass))
	if _, err := c.Send(withPatience(t), "lobby", "hello"); err != nil {
		t.Fatal(err)
	}
	l.expect(t, "hello")
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// A server's own verdict still ends Run at once.
func TestOurAnswersEndRun(t *testing.T) {
	n := serve(t)
	cfg := config(n.addr, "ann")
	cfg.Token = func(context.Context) (string, error) { return "nobody's", nil }
	ended := run(t, newClient(t, cfg), newListener())
	select {
	case err := <-ended:
		ended <- err
		if !errors.Is(err, reprise.ErrUnauthenticated) {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(patience):
		t.Error("Run does not end")
	}
}
