package rpc

import (
	"context"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/reprise-chat/reprise/server/internal/forwarded"
)

// TestForwardedCalls: a call counts for whom a trusted proxy forwards it, and
// for its peer if that is none, whatever is in the header.
func TestForwardedCalls(t *testing.T) {
	ps, err := forwarded.Parse([]string{"127.0.0.1", "10.0.0.0/8", "fe80::/10"})
	if err != nil {
		t.Fatal(err)
	}
	tcp := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 4711} }
	for _, tt := range []struct {
		name   string
		peer   net.Addr
		header []string
		want   string
	}{
		{"from nobody known", nil, []string{"198.51.100.1"}, ""},
		{"from a socket without an address", &net.UnixAddr{Name: "@", Net: "unix"}, []string{"198.51.100.1"}, "@"},
		{"forged", tcp("192.0.2.9"), []string{"198.51.100.1"}, "192.0.2.9"},
		{"of the proxy itself", tcp("127.0.0.1"), nil, "127.0.0.1"},
		{"forwarded", tcp("127.0.0.1"), []string{"198.51.100.1"}, "198.51.100.1"},
		{"forwarded, and forged before", tcp("127.0.0.1"), []string{"203.0.113.5", "203.0.113.6, 198.51.100.1"}, "198.51.100.1"},
		{"forwarded twice", tcp("127.0.0.1"), []string{"203.0.113.5, 198.51.100.1, 10.1.2.3"}, "198.51.100.1"},
		{"forwarded for IPv6", tcp("::ffff:127.0.0.1"), []string{"2001:db8:1:2:3::4"}, "2001:db8:1:2::/64"},
		{"forwarded by a neighbour", &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}, []string{"198.51.100.1"}, "198.51.100.1"},
		{"forwarded for no address", tcp("127.0.0.1"), []string{"unknown"}, "127.0.0.1"},
		{"forwarded for very much", tcp("127.0.0.1"), []string{strings.Repeat("1", 16<<10)}, "127.0.0.1"},
	} {
		md := metadata.MD{"x-forwarded-for": tt.header}
		ctx := context.Background()
		if tt.peer != nil {
			ctx = peer.NewContext(ctx, &peer.Peer{Addr: tt.peer})
		}
		if got := addressOf(withClient(ctx, ps, md)); got != tt.want {
			t.Errorf("a call %s counts for %q, want %q", tt.name, got, tt.want)
		}
		before := addressOf(ctx)
		if got := addressOf(withClient(ctx, nil, md)); got != before {
			t.Errorf("a call %s, with no proxies, counts for %q, want %q", tt.name, got, before)
		}
	}
	if TrustProxies(nil) != nil {
		t.Error("without proxies, calls are looked at")
	}
	stranger := peer.NewContext(context.Background(), &peer.Peer{Addr: tcp("192.0.2.9")})
	forged := metadata.MD{"x-forwarded-for": {strings.Repeat("10.0.0.1,", 1800)}}
	if n := testing.AllocsPerRun(100, func() { withClient(stranger, ps, forged) }); n > 0 {
		t.Errorf("a forged header costs %v allocations", n)
	}
}
