package server

import (
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/session"
)

// metrics counts what the promises are about. It is told by the core and asks
// nothing of it.
type metrics struct {
	registry *prometheus.Registry

	attaches  *prometheus.CounterVec
	bytes     prometheus.Counter
	gaps      *prometheus.CounterVec
	gapEvents *prometheus.CounterVec
	rewinds   prometheus.Counter
	publishes *prometheus.CounterVec

	// Looked up once: they are counted for each frame and each publish.
	live, replayed, published prometheus.Counter
}

func newMetrics() *metrics {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		r.MustRegister(c)
		return c
	}
	one := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	events := vec("reprise_delivered_events_total", "Events handed to streams, live or replayed.", "kind")
	publishes := vec("reprise_publishes_total", "Publishes, by how they ended.", "result")
	return &metrics{
		registry:  r,
		live:      events.WithLabelValues("live"),
		replayed:  events.WithLabelValues("replay"),
		published: publishes.WithLabelValues("ok"),
		publishes: publishes,
		attaches:  vec("reprise_attaches_total", "Sessions attached, by outcome.", "outcome"),
		bytes:     one("reprise_delivered_bytes_total", "Encoded bytes of the events handed to streams."),
		gaps:      vec("reprise_gaps_total", "Gaps sent, by reason.", "reason"),
		gapEvents: vec("reprise_gap_offsets_total", "Offsets named by gaps, by reason.", "reason"),
		rewinds:   one("reprise_rewinds_total", "Clients told that the log is not the one they knew."),
	}
}

func (m *metrics) gauge(name, help string, value func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Attached implements attach.Observer.
func (m *metrics) Attached(o reprisev1.Outcome) { m.attaches.WithLabelValues(o.String()).Inc() }

// Delivered implements attach.Observer.
func (m *metrics) Delivered(replayed bool, events uint64, bytes int) {
	kind := m.live
	if replayed {
		kind = m.replayed
	}
	kind.Add(float64(events))
	m.bytes.Add(float64(bytes))
}

// Gap implements attach.Observer.
func (m *metrics) Gap(reason reprisev1.GapReason, offsets uint64) {
	m.gaps.WithLabelValues(reason.String()).Inc()
	m.gapEvents.WithLabelValues(reason.String()).Add(float64(offsets))
}

// Rewind implements attach.Observer.
func (m *metrics) Rewind() { m.rewinds.Inc() }

// publish is told how each publish ended.
func (m *metrics) publish(duplicate bool, err error) {
	var result string
	switch {
	case err == nil && !duplicate:
		m.published.Inc()
		return
	case duplicate:
		result = "duplicate"
	case errors.Is(err, session.ErrFenced):
		result = "fenced"
	case errors.Is(err, room.ErrNotFound):
		result = "not_found"
	default:
		result = "refused"
	}
	m.publishes.WithLabelValues(result).Inc()
}
