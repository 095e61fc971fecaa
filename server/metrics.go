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
	"github.com/reprise-chat/reprise/server/internal/store"
)

// metrics counts what the promises are about. It is told by the core and asks
// nothing of it.
type metrics struct {
	registry *prometheus.Registry

	attaches    *prometheus.CounterVec
	bytes       prometheus.Counter
	gaps        *prometheus.CounterVec
	gapEvents   *prometheus.CounterVec
	rewinds     prometheus.Counter
	unavailable prometheus.Counter
	publishes   *prometheus.CounterVec

	// Looked up once: they are counted for each frame and each publish.
	live, replayed, published prometheus.Counter
}

// How a publish ends, as reprise_publishes_total says it.
const (
	publishOK        = "ok"
	publishDuplicate = "duplicate"
	publishFenced    = "fenced"
	publishNotFound  = "not_found"
	publishRefused   = "refused"
)

// newMetrics returns metrics of which every one, with every value of its labels,
// is there from the start, at zero: a rate over a counter that appears with its
// first event misses that event.
func newMetrics() *metrics {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	vec := func(name, help, label string, values ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		r.MustRegister(c)
		for _, v := range values {
			c.WithLabelValues(v)
		}
		return c
	}
	one := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	events := vec("reprise_delivered_events_total", "Events handed to streams, live or replayed.", "kind", "live", "replay")
	publishes := vec("reprise_publishes_total", "Publishes, by how they ended.", "result",
		publishOK, publishDuplicate, publishFenced, publishNotFound, publishRefused)
	reasons := valuesOf(reprisev1.GapReason_name)
	return &metrics{
		registry:    r,
		live:        events.WithLabelValues("live"),
		replayed:    events.WithLabelValues("replay"),
		published:   publishes.WithLabelValues(publishOK),
		publishes:   publishes,
		attaches:    vec("reprise_attaches_total", "Sessions attached, by outcome.", "outcome", valuesOf(reprisev1.Outcome_name)...),
		bytes:       one("reprise_delivered_bytes_total", "Encoded bytes of the events handed to streams."),
		gaps:        vec("reprise_gaps_total", "Gaps sent, by reason.", "reason", reasons...),
		gapEvents:   vec("reprise_gap_offsets_total", "Offsets named by gaps, by reason.", "reason", reasons...),
		unavailable: one("reprise_rooms_unavailable_total", "Times that a client was told that a room cannot be read just now."),
		rewinds:     one("reprise_rewinds_total", "Clients told that the log is not the one they knew."),
	}
}

// valuesOf returns the names of an enum's values but that of 0, which is never
// sent.
func valuesOf(names map[int32]string) (values []string) {
	for n, name := range names {
		if n != 0 {
			values = append(values, name)
		}
	}
	return values
}

// watchWrites tells whether the store refuses writes.
func (m *metrics) watchWrites(s store.Store) {
	m.gauge("reprise_writes_refused", "1 while writes are refused, because the disk is below its reserve or the store is closed; else 0.", func() float64 {
		if s.Writable() != nil {
			return 1
		}
		return 0
	})
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

// Unavailable implements attach.Observer.
func (m *metrics) Unavailable() { m.unavailable.Inc() }

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
		result = publishDuplicate
	case errors.Is(err, session.ErrFenced):
		result = publishFenced
	case errors.Is(err, room.ErrNotFound):
		result = publishNotFound
	default:
		result = publishRefused
	}
	m.publishes.WithLabelValues(result).Inc()
}
