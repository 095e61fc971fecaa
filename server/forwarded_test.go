package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
	"github.com/reprise-chat/reprise/server/internal/gateway/webtest"
)

// strangersPerAddress is how many streams without a token one address has.
const strangersPerAddress = 32

// through is a context of a call that the proxy says it forwards for a client.
func through(ctx context.Context, client string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "x-forwarded-for", client)
}

// watch opens a stream that needs no token; it ends with the context.
func watch(ctx context.Context, conn *grpc.ClientConn) error {
	s, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	_, err = s.Recv()
	return err
}

// byTrust runs a test with this machine as a trusted proxy, with only others,
// and without any.
func byTrust(t *testing.T, test func(t *testing.T, trusted bool, proxies []string)) {
	t.Helper()
	for name, proxies := range map[string][]string{
		"trusted": {"127.0.0.1", "10.0.0.0/8"}, "not trusted": {"10.0.0.0/8"}, "none trusted": nil,
	} {
		t.Run(name, func(t *testing.T) { test(t, name == "trusted", proxies) })
	}
}

// TestForwardedByAddress: on the gRPC port, bounds by address are by client
// behind a proxy that is believed; what nobody is to believe changes nothing.
func TestForwardedByAddress(t *testing.T) {
	byTrust(t, func(t *testing.T, trusted bool, proxies []string) {
		n := serve(t, func(o *server.Options) { o.TrustedProxies = proxies })
		for i := range strangersPerAddress {
			forged := fmt.Sprintf("203.0.113.%d, 198.51.100.1, 10.1.2.3", i)
			if err := watch(through(t.Context(), forged), n.conn); err != nil {
				t.Fatalf("stream %d: %v", i, err)
			}
		}
		err := watch(through(t.Context(), "203.0.113.66, 198.51.100.1"), n.conn)
		refused(t, err, codes.ResourceExhausted, "TOO_MANY_STREAMS")
		err = watch(through(t.Context(), "198.51.100.2"), n.conn)
		if !trusted {
			refused(t, err, codes.ResourceExhausted, "TOO_MANY_STREAMS")
			return
		}
		if err != nil {
			t.Errorf("another client of the proxy: %v", err)
		}
		if err := watch(t.Context(), n.conn); err != nil {
			t.Errorf("the proxy itself: %v", err)
		}
	})
}

// TestForwardedInLog: the log names the client of a call, on both ports, and a
// browser cannot make the gateway believe another one: neither in the header of
// a request that the proxy extends, nor where its metadata stand.
func TestForwardedInLog(t *testing.T) {
	byTrust(t, func(t *testing.T, trusted bool, proxies []string) {
		var log lines
		n := serve(t, func(o *server.Options) {
			o.TrustedProxies = proxies
			o.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		const client, own = "198.51.100.1", "127.0.0.1"
		forged := http.Header{"X-Forwarded-For": {"203.0.113.66"}, "Authorization": {"Bearer dev:carol"}}
		_, err := n.GetRoom(through(as(t, "alice"), "203.0.113.66, "+client), &reprisev1.GetRoomRequest{Room: "nowhere"})
		refused(t, err, codes.NotFound, "ROOM_NOT_FOUND")
		_, err = n.GetRoom(as(t, "bob"), &reprisev1.GetRoomRequest{Room: "nowhere"})
		refused(t, err, codes.NotFound, "ROOM_NOT_FOUND")
		w, err := webtest.DialWebsocket(t.Context(), n.web, reprisev1.ChatService_GetRoom_FullMethodName, webtest.Options{
			Upgrade: http.Header{"X-Forwarded-For": {"203.0.113.66, " + client}}, Metadata: forged,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if err := errors.Join(w.SendMessage(&reprisev1.GetRoomRequest{Room: "nowhere"}), w.CloseSend()); err != nil {
			t.Fatal(err)
		}
		refused(t, w.Recv(&reprisev1.GetRoomResponse{}), codes.NotFound, "ROOM_NOT_FOUND")
		for user, peer := range map[string]string{"alice": client, "bob": own, "carol": client} {
			if !trusted {
				peer = own
			}
			if line := log.find(t, "refused", map[string]any{"user": user}); line["peer"] != peer {
				t.Errorf("the peer of %s is %v, want %s", user, line["peer"], peer)
			}
		}
	})
}

// TestConnectionsOfProxies: the bounds on connections by address are not for
// trusted proxies, on either port.
func TestConnectionsOfProxies(t *testing.T) {
	const most = 4
	byTrust(t, func(t *testing.T, trusted bool, proxies []string) {
		n := serve(t, func(o *server.Options) {
			o.TrustedProxies = proxies
			o.Limits.AddressConnections, o.Limits.AddressWebConnections = most, most
		})
		refusals := map[string]int{}
		for range 3 * most {
			conn, err := dial(n.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if watch(t.Context(), conn) != nil {
				refusals["gRPC"]++
			}
			if keepWeb(t, n.web) != nil {
				refusals["HTTP"]++
			}
		}
		for _, port := range []string{"gRPC", "HTTP"} {
			if n := refusals[port]; trusted != (n == 0) {
				t.Errorf("%d of %d connections to the port for %s are refused", n, 3*most, port)
			}
		}
	})
}

// keepWeb asks something of the port for browsers, over a connection of its own
// that stays open until the test ends.
func keepWeb(t *testing.T, base string) error {
	t.Helper()
	transport := &http.Transport{DialContext: new(net.Dialer).DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/healthz", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body) // else the connection does not stay
	return errors.Join(err, resp.Body.Close())
}
