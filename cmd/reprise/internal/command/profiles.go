package command

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	reprise "github.com/reprise-chat/reprise/client"
)

// profiles serves what Go knows of this process, for go tool pprof, on an
// address of its own: whoever may call or chat need not see it.
type profiles struct {
	listener net.Listener
	server   *http.Server
	serving  sync.WaitGroup
}

// serveProfiles serves on l until close is called. l is a loopback address.
func serveProfiles(l net.Listener, log *slog.Logger) *profiles {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	p := &profiles{listener: l, server: &http.Server{Handler: loopbackOnly(mux), ReadHeaderTimeout: 5 * time.Second}}
	p.serving.Go(func() {
		if err := p.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("profiles are no longer served", "error", err)
		}
	})
	return p
}

// loopbackOnly refuses what a page in a browser of this machine asks for by a
// name of its own that it has made lead here.
func loopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !reprise.IsLoopback(r.Host) {
			http.Error(w, "ask by the address that serve has printed, not by "+r.Host, http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// url is where to look; "" if there are no profiles.
func (p *profiles) url() string {
	if p == nil {
		return ""
	}
	return "http://" + p.listener.Addr().String() + "/debug/pprof/"
}

// close ends what is being looked at.
func (p *profiles) close() {
	if p == nil {
		return
	}
	_ = p.server.Close() // a profile that is cut short
	p.serving.Wait()
}
