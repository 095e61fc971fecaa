package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
	"github.com/reprise-chat/reprise/server/internal/gateway/webtest"
)

// TestProxies runs real proxies with the configurations of docs/proxies.md in
// front of both ports: REPRISE_PROXIES=1, make test-proxies.
func TestProxies(t *testing.T) {
	if os.Getenv("REPRISE_PROXIES") == "" {
		t.Skip("set REPRISE_PROXIES=1, and have nginx and haproxy")
	}
	// So that a proxy's timeouts can be a hundred times shorter than in the
	// documentation, and still be kept off by nothing but heartbeats.
	const heartbeat = 200 * time.Millisecond
	for name, run := range map[string]func(*testing.T, *proxied){"nginx": runNginx, "haproxy": runHAProxy} {
		t.Run(name, func(t *testing.T) {
			p := &proxied{dir: t.TempDir()}
			p.serve(t, server.Options{
				Heartbeat: heartbeat, Hosts: []string{"chat.example.com"}, TrustedProxies: []string{"127.0.0.1"},
				Limits: server.Limits{AddressWebCalls: 1, AddressWebConnections: 2, AddressConnections: 2},
			})
			p.certify(t)
			p.front = freeAddress(t)
			run(t, p)
			p.await(t)
			t.Run("page", p.page)
			t.Run("unary", p.unary)
			t.Run("websocket", p.websocket)
			t.Run("addresses", p.addresses)
			t.Run("grpc", p.grpc)
			t.Run("grpc addresses", p.grpcAddresses)
		})
	}
}

// proxied is a server behind a proxy.
type proxied struct {
	dir             string
	native, browser string // the server's addresses
	front           string // the proxy's address
	roots           *x509.CertPool
}

func (p *proxied) serve(t *testing.T, o server.Options) {
	t.Helper()
	o.Dir, o.NoSync, o.DiskReserve, o.Logger = t.TempDir(), true, -1, slog.New(slog.DiscardHandler)
	srv, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	var listeners [2]net.Listener
	for i := range listeners {
		if listeners[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	p.native, p.browser = listeners[0].Addr().String(), listeners[1].Addr().String()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listeners[0], listeners[1]) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(srv.Shutdown(ctx), <-served); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("shutdown: %v", err)
		}
	})
}

// certify writes a certificate and its key for both names.
func (p *proxied) certify(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "chat.example.com"},
		DNSNames:  []string{"chat.example.com", "grpc.chat.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	p.write(t, "cert.pem", cert)
	p.write(t, "key.pem", private)
	p.write(t, "both.pem", append(cert, private...))
	p.roots = x509.NewCertPool()
	p.roots.AppendCertsFromPEM(cert)
}

func (p *proxied) write(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// configuration is the block of docs/proxies.md in a language, with the
// addresses, files and times of this test.
func (p *proxied) configuration(t *testing.T, language string, replace ...string) string {
	t.Helper()
	doc, err := os.ReadFile("../docs/proxies.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindSubmatch(doc)
	if m == nil {
		t.Fatalf("docs/proxies.md has no block of %s", language)
	}
	text := string(m[1])
	replace = append(replace, "127.0.0.1:8080", p.browser, "127.0.0.1:9090", p.native, "90s", "900ms")
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("the configuration of %s does not have %q", language, replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	return text
}

func runNginx(t *testing.T, p *proxied) {
	t.Helper()
	text := p.configuration(t, "nginx", "listen 443", "listen "+p.front,
		"/etc/ssl/chat.example.com.pem", p.dir+"/cert.pem", "/etc/ssl/chat.example.com.key", p.dir+"/key.pem")
	config := p.write(t, "nginx.conf", fmt.Appendf(nil, `daemon off; worker_processes 1; pid %[1]s/nginx.pid; error_log stderr;
events {}
http {
access_log off;
client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
%s
}
`, p.dir, text))
	user := ""
	if os.Getuid() == 0 {
		user = "user root;"
	}
	start(t, "nginx", "-p", p.dir, "-c", config, "-g", user)
}

func runHAProxy(t *testing.T, p *proxied) {
	t.Helper()
	text := p.configuration(t, "haproxy", "bind :443", "bind "+p.front, "/etc/haproxy/chat.example.com.pem", p.dir+"/both.pem")
	start(t, "haproxy", "-db", "-f", p.write(t, "haproxy.cfg", []byte(text)))
}

// start runs a program until the test ends.
func start(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, out.String())
		}
	})
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (p *proxied) await(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", p.front)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// client is a browser on the address given that finds both names at the proxy.
func (p *proxied) client(t *testing.T, from string) *http.Client {
	t.Helper()
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return d.DialContext(ctx, network, p.front)
		},
		TLSClientConfig: &tls.Config{RootCAs: p.roots},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

const (
	webBase    = "https://chat.example.com"
	pageOrigin = webBase
	getRoom    = reprisev1.ChatService_GetRoom_FullMethodName
)

func browserMetadata() http.Header {
	return http.Header{"Origin": {pageOrigin}, "Authorization": {"Bearer dev:alice"}}
}

func (p *proxied) page(t *testing.T) {
	c := p.client(t, "127.0.0.1")
	resp, err := c.Get(webBase + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !bytes.Contains(b, []byte("<script")) {
		t.Fatalf("%s, %v: %.200q", resp.Status, err, b)
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="(/?assets/[^"]+)"`).FindAllSubmatch(b, -1) {
		req, _ := http.NewRequest(http.MethodGet, webBase+"/"+strings.TrimPrefix(string(m[1]), "/"), nil)
		req.Header.Set("Origin", pageOrigin) // a module script is fetched with it
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", m[1], resp.Status)
		}
	}
	metrics, err := c.Get(webBase + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	metrics.Body.Close()
	if metrics.StatusCode != http.StatusNotFound {
		t.Errorf("the metrics are for everybody: %s", metrics.Status)
	}
}

func (p *proxied) unary(t *testing.T) {
	call := func(size int) error {
		f, err := webtest.Post(badInputContext(t), p.client(t, "127.0.0.1"), webBase, reprisev1.ChatService_SendMessage_FullMethodName,
			webtest.Options{Metadata: browserMetadata()}, &reprisev1.SendMessageRequest{Room: "nowhere", Text: strings.Repeat("x", size)})
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Recv(&reprisev1.SendMessageResponse{})
	}
	if got := proxiedReason(call(5)); got != "ROOM_NOT_FOUND" {
		t.Errorf("a call: %s", got)
	}
	// What is too large is refused by the server, not by the proxy.
	if got := proxiedReason(call(2 << 20)); got != "FRAME_TOO_LARGE" {
		t.Errorf("a call that is too large: %s", got)
	}
}

// proxiedReason is the ErrorInfo.reason of an error, or the error.
func proxiedReason(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == "reprise.chat" {
			return info.GetReason()
		}
	}
	return fmt.Sprint(err)
}

// openWeb opens a session over a websocket.
func (p *proxied) openWeb(t *testing.T, from string) (*webtest.Websocket, error) {
	t.Helper()
	w, err := webtest.DialWebsocket(badInputContext(t), webBase, reprisev1.ChatService_Connect_FullMethodName, webtest.Options{
		Client: p.client(t, from), Upgrade: http.Header{"Origin": {pageOrigin}},
		Metadata: http.Header{"Authorization": {"Bearer dev:alice"}},
	})
	if err != nil {
		return nil, err
	}
	t.Cleanup(w.Close)
	first := &reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_Open{Open: &reprisev1.OpenRequest{}}}
	f := new(reprisev1.ServerFrame)
	if err := errors.Join(w.SendMessage(first), w.Recv(f)); err != nil {
		return w, err
	}
	if f.GetWelcome() == nil {
		return w, fmt.Errorf("the first frame is %v", f)
	}
	return w, nil
}

// stays requires that a stream with nothing but heartbeats on it lives much
// longer than the proxy's timeouts.
func stays(t *testing.T, recv func(*reprisev1.ServerFrame) error) {
	t.Helper()
	for began, beats := time.Now(), 0; time.Since(began) < 4*time.Second; {
		f := new(reprisev1.ServerFrame)
		if err := recv(f); err != nil {
			t.Fatalf("after %v and %d heartbeats: %v", time.Since(began), beats, err)
		}
		if f.GetHeartbeat() != nil {
			beats++
		}
	}
}

func (p *proxied) websocket(t *testing.T) {
	w, err := p.openWeb(t, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	stays(t, func(f *reprisev1.ServerFrame) error { return w.Recv(f) })
}

// addresses: with one call and two connections by address, clients at different
// addresses have one each, whatever they write into X-Forwarded-For.
func (p *proxied) addresses(t *testing.T) {
	for _, from := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"} {
		if _, err := p.openWeb(t, from); err != nil {
			t.Errorf("a client at %s: %v", from, err)
		}
	}
	forged := browserMetadata()
	forged.Set("X-Forwarded-For", "192.0.2.1")
	f, err := webtest.Post(badInputContext(t), p.client(t, "127.0.0.2"), webBase, getRoom,
		webtest.Options{Metadata: forged}, &reprisev1.GetRoomRequest{Room: "nowhere"})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := proxiedReason(f.Recv(&reprisev1.GetRoomResponse{})); got != "TOO_MANY_CALLS" {
		t.Errorf("a second call from one address, with a forged header: %s", got)
	}
}

// dial connects to the gRPC port through the proxy, from the address given.
func (p *proxied) dial(t *testing.T, from string) *grpc.ClientConn {
	t.Helper()
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := grpc.NewClient("passthrough:///grpc.chat.example.com",
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: p.roots})),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", p.front)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// grpcAddresses: with so many streams without a token by address, a client that
// has them all, under whatever names it makes up, takes none from another one.
func (p *proxied) grpcAddresses(t *testing.T) {
	crowd := p.dial(t, "127.0.0.2")
	for i := range strangersPerAddress {
		if err := watch(through(t.Context(), fmt.Sprintf("192.0.2.%d", i)), crowd); err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
	if err := watch(through(t.Context(), "192.0.2.99"), crowd); proxiedReason(err) != "TOO_MANY_STREAMS" {
		t.Errorf("a stream more from one address, with a forged header: %v", err)
	}
	if err := watch(t.Context(), p.dial(t, "127.0.0.3")); err != nil {
		t.Errorf("a client at another address: %v", err)
	}
}

func (p *proxied) grpc(t *testing.T) {
	conn := p.dial(t, "127.0.0.1")
	ctx := metadata.AppendToOutgoingContext(badInputContext(t), "authorization", "Bearer dev:alice")
	chat := reprisev1.NewChatServiceClient(conn)
	if _, err := chat.GetRoom(ctx, &reprisev1.GetRoomRequest{Room: "nowhere"}); proxiedReason(err) != "ROOM_NOT_FOUND" {
		t.Errorf("a call: %v", err)
	}
	s, err := chat.Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_Open{Open: &reprisev1.OpenRequest{}}}); err != nil {
		t.Fatal(err)
	}
	stays(t, func(f *reprisev1.ServerFrame) error { return s.RecvMsg(f) })
	if err := s.Send(&reprisev1.ClientFrame{RequestId: "r1", Frame: &reprisev1.ClientFrame_Ack{Ack: &reprisev1.AckRequest{}}}); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if f.GetReceipt().GetRequestId() == "r1" {
			break
		}
	}
}
