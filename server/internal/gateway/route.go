package gateway

import (
	"fmt"
	"net/http"
	"net/netip"

	"github.com/reprise-chat/reprise/server/internal/reason"
)

// securityHeaders are on every response of the handler. The page needs
// nothing but what this server gives it: no inline script, no other origin.
var securityHeaders = map[string]string{
	"Content-Security-Policy": "default-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; object-src 'none'",
	"X-Content-Type-Options":  "nosniff",
	"X-Frame-Options":         "DENY",
	"Referrer-Policy":         "no-referrer",
}

// guard is in front of everything: who it is, then Host, then Origin.
func (g *Gateway) guard(w http.ResponseWriter, r *http.Request) {
	g.identify(r)
	for name, value := range securityHeaders {
		w.Header().Set(name, value)
	}
	s := g.sites.Load()
	if !s.allowsHost(r) {
		g.log.warn("refused a request for a host that is not served; allow it with --host", "host", r.Host, "peer", r.RemoteAddr)
		g.refuse(w, r, errHost, http.StatusMisdirectedRequest)
		return
	}
	// Not the wrapper's business: it leaves out a header that makes the
	// browser hide the response, after the call was executed.
	if !s.allowsOrigin(r) {
		g.log.warn("refused a request of a foreign origin; allow it with --origin", "origin", r.Header.Get("Origin"), "peer", r.RemoteAddr)
		g.refuse(w, r, errOrigin, http.StatusForbidden)
		return
	}
	g.route(w, r)
}

// identify has the request say who calls, and not which proxy passed it on.
// Nobody looks at the proxy's headers any more: they are no metadata.
func (g *Gateway) identify(r *http.Request) {
	peer, ok := ipOf(r.RemoteAddr)
	if !ok || !g.opts.TrustedProxies.Trusts(peer) {
		return
	}
	if client := g.opts.TrustedProxies.Client(peer, r.Header.Values("X-Forwarded-For")); client != peer {
		r.RemoteAddr = netip.AddrPortFrom(client, 0).String() // which port is not said
	}
}

// refuse answers a call as gRPC does, so that its client learns the reason, and
// anything else with an HTTP status.
func (g *Gateway) refuse(w http.ResponseWriter, r *http.Request, why *reason.Error, code int) {
	// No page of a foreign origin may read the answer.
	r.Header.Del("Origin")
	switch {
	case g.wrapper.IsGrpcWebSocketRequest(r):
		g.serveWebsocket(w, r, why)
	case g.wrapper.IsGrpcWebRequest(r):
		g.serveFetch(w, r, why)
	default:
		http.Error(w, why.Message, code)
	}
}

// route lets only what the wrapper recognises go on to it, because it passes
// everything else to gRPC unchecked.
func (g *Gateway) route(w http.ResponseWriter, r *http.Request) {
	switch {
	case g.wrapper.IsGrpcWebSocketRequest(r):
		g.serveWebsocket(w, r, nil)
	case g.wrapper.IsGrpcWebRequest(r):
		g.serveFetch(w, r, nil)
	case g.isPreflight(r):
		g.wrapper.ServeHTTP(w, r)
	case r.Method == http.MethodPost && g.methods[r.URL.Path]:
		w.Header().Set("Accept-Post", "application/grpc-web+proto, application/grpc-web-text+proto")
		http.Error(w, "only grpc-web is taken by POST: content-type application/grpc-web+proto", http.StatusUnsupportedMediaType)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET, and POST of grpc-web, are served here", http.StatusMethodNotAllowed)
	case r.URL.Path == "/healthz":
		fmt.Fprintln(w, "ok")
	case r.URL.Path == "/readyz":
		g.serveReady(w)
	case r.URL.Path == "/metrics":
		serveOr404(g.opts.Metrics, w, r)
	default:
		serveOr404(g.opts.Page, w, r)
	}
}

// isPreflight recognises a browser's question whether a page of another,
// allowed origin may call one of the registered methods.
func (g *Gateway) isPreflight(r *http.Request) bool {
	return r.Header.Get("Origin") != "" &&
		r.Header.Get("Access-Control-Request-Method") == http.MethodPost &&
		g.wrapper.IsAcceptableGrpcCorsRequest(r)
}

func (g *Gateway) serveReady(w http.ResponseWriter) {
	if g.opts.Ready != nil {
		if err := g.opts.Ready(); err != nil {
			http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	fmt.Fprintln(w, "ready")
}

func serveOr404(h http.Handler, w http.ResponseWriter, r *http.Request) {
	if h == nil {
		http.NotFound(w, r)
		return
	}
	h.ServeHTTP(w, r)
}
