package gateway

import (
	"net/http"
	"time"
)

// bodyGrace is how long a request's body may take to end after the response
// has: long enough for what is on its way, which http.Server discards, so
// that the peer gets the response and not a reset.
const bodyGrace = 500 * time.Millisecond

// serveFetch serves one grpc-web POST.
func (g *Gateway) serveFetch(w http.ResponseWriter, r *http.Request) {
	c := newCall(r)
	defer c.end()
	if c.refused = !g.calls.take(c.address); !c.refused {
		defer g.calls.give(c.address)
	}
	c.hangUp = func(ended bool) {
		if !ended { // else nothing but the next request is to come
			c.reading.set(time.Now().Add(bodyGrace))
		}
	}
	// Without it the first write of a response waits for the request's end,
	// which a peer can withhold.
	_ = http.NewResponseController(w).EnableFullDuplex()
	g.wrapper.ServeHTTP(&fetchWriter{ResponseWriter: w, call: c}, c.forWrapper(r))
}

// fetchWriter is a response that says that the connection cannot be used
// again when it begins before the request has ended. With full duplex
// http.Server does not see to that, and would take the rest of the request
// for the next one.
type fetchWriter struct {
	http.ResponseWriter
	call  *call
	began bool
}

// WriteHeader implements http.ResponseWriter.
func (w *fetchWriter) WriteHeader(code int) {
	w.begin()
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *fetchWriter) Write(p []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (w *fetchWriter) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

func (w *fetchWriter) begin() {
	if w.began {
		return
	}
	w.began = true
	if w.call.in == nil || !w.call.in.ended.Load() {
		w.Header().Set("Connection", "close")
	}
}
