package forwarded

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestClient(t *testing.T) {
	ps, err := Parse([]string{"127.0.0.1", "10.0.0.0/8", "::1", "2001:db8:1::/48"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, peer string
		header     []string
		want       string
	}{
		{"no proxy, a forged header", "192.0.2.9", []string{"198.51.100.1"}, "192.0.2.9"},
		{"a proxy without the header", "127.0.0.1", nil, "127.0.0.1"},
		{"one proxy", "127.0.0.1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"behind what the client forged", "127.0.0.1", []string{"203.0.113.5, 198.51.100.1"}, "198.51.100.1"},
		{"two proxies", "127.0.0.1", []string{"203.0.113.5, 198.51.100.1, 10.1.2.3"}, "198.51.100.1"},
		{"two lines", "127.0.0.1", []string{"203.0.113.5", "198.51.100.1", "10.1.2.3"}, "198.51.100.1"},
		{"only proxies", "127.0.0.1", []string{"10.0.0.1, 10.1.2.3"}, "10.0.0.1"},
		{"with a port", "127.0.0.1", []string{"198.51.100.1:4711"}, "198.51.100.1"},
		{"IPv6", "::1", []string{"2001:db8:2::7"}, "2001:db8:2::7"},
		{"IPv6 with a port", "::1", []string{"[2001:db8:2::7]:80"}, "2001:db8:2::7"},
		{"IPv4 in IPv6", "::ffff:127.0.0.1", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"no address", "127.0.0.1", []string{"198.51.100.1, unknown"}, "127.0.0.1"},
		{"an empty entry", "127.0.0.1", []string{"198.51.100.1,,10.0.0.1"}, "10.0.0.1"},
		{"an empty line", "127.0.0.1", []string{"198.51.100.1", ""}, "198.51.100.1"},
		{"as many proxies as there may be", "127.0.0.1", []string{"198.51.100.1" + strings.Repeat(", 10.0.0.1", maxHops-1)}, "198.51.100.1"},
		{"too many proxies", "127.0.0.1", []string{"198.51.100.1" + strings.Repeat(", 10.0.0.1", maxHops)}, "10.0.0.1"},
		{"a long entry", "127.0.0.1", []string{"2001:db8:2::7%" + strings.Repeat("x", maxEntry)}, "127.0.0.1"},
	} {
		if got := ps.Client(netip.MustParseAddr(tt.peer), tt.header); got != netip.MustParseAddr(tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, got, tt.want)
		}
	}
	if got := Proxies(nil).Client(netip.MustParseAddr("127.0.0.1"), []string{"198.51.100.1"}); got != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("without trusted proxies: %v", got)
	}
}

func TestPeer(t *testing.T) {
	ps, err := Parse([]string{"127.0.0.1", "fe80::/10"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		peer    net.Addr
		trusted bool
	}{
		{"a proxy", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, true},
		{"IPv4 in IPv6", &net.TCPAddr{IP: net.ParseIP("::ffff:127.0.0.1"), Port: 1}, true},
		{"with a zone", &net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 1, Zone: "eth0"}, true},
		{"another address", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 1}, false},
		{"no address", &net.TCPAddr{}, false},
		{"of another type", text("127.0.0.1:80"), true},
		{"a socket of this machine", &net.UnixAddr{Name: "/run/reprise", Net: "unix"}, false},
	} {
		if got := ps.TrustsPeer(tt.peer); got != tt.trusted {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.trusted)
		}
		if Proxies(nil).TrustsPeer(tt.peer) {
			t.Errorf("%s is trusted where nobody is", tt.name)
		}
	}
}

// text is the address of a connection that is no TCP connection.
type text string

func (text) Network() string  { return "text" }
func (a text) String() string { return string(a) }

func TestParse(t *testing.T) {
	for _, bad := range []string{"", "proxy.example", "10.0.0.0/33", "10.0.0.1:80", "10.0.0"} {
		if ps, err := Parse([]string{bad}); err == nil {
			t.Errorf("%q is %v", bad, ps)
		}
	}
	// A range is what its mask leaves of it.
	ps, err := Parse([]string{"10.1.2.3/8"})
	if err != nil || !ps.Trusts(netip.MustParseAddr("10.200.0.1")) || ps.Trusts(netip.MustParseAddr("11.0.0.1")) {
		t.Errorf("10.1.2.3/8 is %v, %v", ps, err)
	}
}

// FuzzClient: whatever stands in the header, the answer is an address in it
// behind nothing but proxies, or the peer.
func FuzzClient(f *testing.F) {
	f.Add("198.51.100.1, 10.0.0.1")
	f.Add(",,,")
	f.Add("[::1]:80, x")
	ps, _ := Parse([]string{"127.0.0.1", "10.0.0.0/8"})
	f.Fuzz(func(t *testing.T, header string) {
		got := ps.Client(netip.MustParseAddr("127.0.0.1"), []string{header})
		if !got.IsValid() {
			t.Fatalf("%q is nobody", header)
		}
		if again := ps.Client(netip.MustParseAddr("127.0.0.1"), []string{"203.0.113.9", header + ", 198.51.100.77"}); again.String() != "198.51.100.77" {
			t.Fatalf("what a client wrote hides who it is: %v", again)
		}
		if stranger := ps.Client(netip.MustParseAddr("192.0.2.1"), []string{header}); stranger.String() != "192.0.2.1" {
			t.Fatalf("a stranger is believed: %v", stranger)
		}
	})
}
