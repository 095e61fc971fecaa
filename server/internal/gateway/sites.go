package gateway

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// sites are the hosts served and the origins that may call. Immutable.
type sites struct {
	hosts   map[string]bool
	origins map[string]bool
}

// newSites checks and normalises the configured lists. The server's own
// origins, those of its hosts, are always among them: its page calls it.
func newSites(hosts, origins []string) (*sites, error) {
	s := &sites{hosts: map[string]bool{}, origins: map[string]bool{}}
	for _, h := range hosts {
		u, err := url.Parse("http://" + h)
		if err != nil || u.Host != h || u.Hostname() == "" {
			return nil, fmt.Errorf("gateway: host %q: want a name or address with its port, as %q", h, "chat.example:8080")
		}
		h = strings.ToLower(h)
		s.hosts[h] = true
		s.origins["http://"+h] = true
		s.origins["https://"+h] = true
	}
	for _, o := range origins {
		u, err := url.Parse(o)
		if err != nil || u.Hostname() == "" || u.Scheme+"://"+u.Host != o {
			return nil, fmt.Errorf("gateway: origin %q: want exactly scheme://host[:port], as %q", o, "https://chat.example")
		}
		s.origins[strings.ToLower(o)] = true
	}
	return s, nil
}

// loopbackHosts are the names by which a browser on this machine reaches a
// listener on loopback; nil if addr is not on loopback.
func loopbackHosts(addr net.Addr) []string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsLoopback() {
		return nil
	}
	names := []string{"localhost", "127.0.0.1", "[::1]"}
	if tcp.Port == 80 { // browsers leave the scheme's own port out
		return names
	}
	for i := range names {
		names[i] += ":" + strconv.Itoa(tcp.Port)
	}
	return names
}

// allowsHost reports whether the request names a host that is served. A page
// of another site that made its own name resolve to this machine (DNS
// rebinding) still sends its own name here.
func (s *sites) allowsHost(r *http.Request) bool {
	return s.hosts[strings.ToLower(r.Host)]
}

// allowsOrigin reports whether the request may come from where it says it
// comes from. Browsers always name the origin of a request that another site
// caused and that is not a plain GET; a request without one is no browser's,
// or harmless, and carries no ambient credentials that could be misused.
func (s *sites) allowsOrigin(r *http.Request) bool {
	switch origins := r.Header.Values("Origin"); len(origins) {
	case 0:
		return true
	case 1:
		return s.origins[strings.ToLower(origins[0])]
	default:
		return false
	}
}
