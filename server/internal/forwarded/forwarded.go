// Package forwarded finds out who calls through reverse proxies.
package forwarded

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Proxies are the addresses of reverse proxies that are believed about whom
// they forward for. The zero value believes nobody.
type Proxies []netip.Prefix

const (
	// maxHops is how many entries of the header are looked at: more proxies in a
	// row are none.
	maxHops = 32
	// maxEntry bounds an entry that is looked into, in bytes.
	maxEntry = 64
)

// Parse reads addresses ("10.0.0.7") and ranges ("10.0.0.0/8").
func Parse(list []string) (Proxies, error) {
	var ps Proxies
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if a, addrErr := netip.ParseAddr(s); addrErr == nil {
			p, err = netip.PrefixFrom(a.Unmap().WithZone(""), a.Unmap().BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("trusted proxy %q: want an address or a range, as 10.0.0.7 or 10.0.0.0/8", s)
		}
		ps = append(ps, p.Masked())
	}
	return ps, nil
}

// Trusts says whether a is one of the proxies.
func (ps Proxies) Trusts(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// TrustsPeer says whether the other end of a connection is one of the proxies.
func (ps Proxies) TrustsPeer(a net.Addr) bool {
	if len(ps) == 0 {
		return false
	}
	peer, ok := Peer(a)
	return ok && ps.Trusts(peer)
}

// Peer returns the IP address of a connection's other end, if it has one.
func Peer(a net.Addr) (netip.Addr, bool) {
	if tcp, ok := a.(*net.TCPAddr); ok {
		peer := tcp.AddrPort().Addr()
		return peer, peer.IsValid()
	}
	ap, err := netip.ParseAddrPort(a.String())
	return ap.Addr(), err == nil
}

// Client returns who calls: the peer of the connection, or if that is a proxy
// the last address in X-Forwarded-For that is none. What stands before that
// one anybody may have written, and is not looked at. An entry that is no
// address ends the search: the caller is then whoever passed it on. So does a
// row of proxies that is too long.
func (ps Proxies) Client(peer netip.Addr, forwardedFor []string) netip.Addr {
	client := peer.Unmap()
	if !ps.Trusts(client) {
		return client
	}
	left := maxHops
	for i := len(forwardedFor) - 1; i >= 0; i-- {
		line := forwardedFor[i]
		for line != "" {
			var entry string
			if cut := strings.LastIndexByte(line, ','); cut >= 0 {
				line, entry = line[:cut], line[cut+1:]
			} else {
				line, entry = "", line
			}
			a, ok := address(strings.TrimSpace(entry))
			if left--; !ok || left < 0 {
				return client
			}
			if client = a; !ps.Trusts(client) {
				return client
			}
		}
	}
	return client
}

// address reads "192.0.2.1", "192.0.2.1:80", "2001:db8::1" or "[2001:db8::1]:80".
func address(s string) (netip.Addr, bool) {
	if len(s) > maxEntry {
		return netip.Addr{}, false
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return a.Unmap().WithZone(""), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	return netip.Addr{}, false
}
