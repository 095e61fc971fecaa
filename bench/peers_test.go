package main

import (
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/reprise-chat/reprise/bench/internal/lean"
	"github.com/reprise-chat/reprise/bench/internal/load"
	"github.com/reprise-chat/reprise/bench/internal/peers"
	"github.com/reprise-chat/reprise/bench/internal/proc"
	"github.com/reprise-chat/reprise/bench/internal/report"
	"github.com/reprise-chat/reprise/bench/internal/scenario"
)

// leaky is a server that disconnects a subscriber for which more than 100
// events wait. What belongs to one of its processes is used on the loop's
// thread only.
type leaky struct {
	peers.NATS

	published int
}

func (l *leaky) Start(dir string, port uint16) (*proc.Server, error) {
	l.published = 0
	return l.NATS.Start(dir, port)
}

func (l *leaky) Dial(loop *lean.Loop, addr netip.AddrPort, c load.Config, on load.On) load.Client {
	if c.Deaf {
		return publisher{l.NATS.Dial(loop, addr, c, on), l}
	}
	delivered, event := 0, on.Event
	on.Event = func(room int, body []byte) error {
		if l.published-delivered > 100 {
			return errors.New("the queue is full")
		}
		delivered++
		return event(room, body)
	}
	return l.NATS.Dial(loop, addr, c, on)
}

type publisher struct {
	load.Client
	server *leaky
}

func (p publisher) Publish(room int, number uint64, id string, body []byte) {
	p.server.published++
	p.Client.Publish(room, number, id, body)
}

func TestPeerThatLosesClientsIsMeasuredWithLessInFlight(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many processes")
	}
	command, err := proc.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := &scenario.Bench{
		Reprise: command, Dir: t.TempDir(), Scale: 100, Rounds: 1, Duration: 100 * time.Millisecond, Body: 40,
		Report: report.New(nil), Progress: io.Discard,
	}
	if err := b.PeersFanout(t.Context(), scenario.Peer{Target: new(leaky), Times: 1}); err != nil {
		t.Fatal(err)
	}
	notes := strings.Join(b.Report.Notes, "\n")
	for _, want := range []string{"fails with 1024 events in flight", "fails with 128 events in flight", "has at most 64 events in flight"} {
		if !strings.Contains(notes, want) {
			t.Errorf("no note %q in:\n%s", want, notes)
		}
	}
}
