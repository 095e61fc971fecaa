package robustness

import (
	"math/rand/v2"
	"testing"
	"time"
)

// spell is how long a network is bad at a time.
const spell = 1500 * time.Millisecond

// bad is one way in which networks are bad.
type bad struct {
	name, fault string
	// once has the network be bad once, and leaves it whole.
	once func(*network, *process)
	cuts bool // every connection is cut, each time
	// before, if not nil, prepares the network for what is to come.
	before func(*network)
}

var badNetworks = []bad{
	{name: "latency", fault: "network with a latency of 100 ms and a jitter of 80 ms", once: func(n *network, _ *process) {
		n.suffer("latency", map[string]int{"latency": 100, "jitter": 80}, 20*time.Millisecond)
	}},
	{name: "bandwidth", fault: "network that carries less than is said", once: func(n *network, _ *process) {
		n.suffer("bandwidth", map[string]int{"rate": 8}, 20*time.Millisecond) // KB/s a connection
	}},
	{name: "slicer", fault: "network that cuts frames into pieces of a few bytes", once: func(n *network, _ *process) {
		n.suffer("slicer", map[string]int{"average_size": 24, "size_variation": 20, "delay": 20}, 0) // bytes, bytes, µs
	}},
	{name: "limit_data", fault: "connections cut in the middle of a frame", cuts: true, once: func(n *network, _ *process) {
		// Some end in the handshake, and some in what follows it.
		for range 5 {
			n.ail("limit_data", 1, map[string]int{"bytes": 1 + rand.IntN(6000)})
			time.Sleep(spell / 5)
			n.heal()
		}
	}},
	{name: "reset_peer", fault: "connections reset by peer", cuts: true, before: lingerless, once: func(n *network, _ *process) {
		n.heal()
		n.ail("reset_peer", 1, map[string]int{"timeout": 0})
		time.Sleep(spell)
		n.heal()
		lingerless(n)
	}},
	{name: "slow_close", fault: "server killed, and its clients hear of it a second late", cuts: true, once: func(n *network, p *process) {
		n.ail("slow_close", 1, map[string]int{"delay": 1000}) // ms
		p.kill()
		p.start()
		time.Sleep(spell)
		n.heal()
	}},
}

// lingerless has the connections to come send a reset when they are closed:
// toxiproxy sets that for those that begin under this toxic, be it toxic to
// none of them.
func lingerless(n *network) { n.ail("reset_peer", 0, nil) }

// suffer is bad for a spell. A call takes at least so long then, which on this
// machine it otherwise does not.
func (n *network) suffer(kind string, attributes map[string]int, call time.Duration) {
	n.t.Helper()
	n.ail(kind, 1, attributes)
	began := time.Now()
	n.call()
	if took := time.Since(began); took < call {
		n.t.Errorf("a call takes %v: %s is not what the network suffers from", took, kind)
	}
	time.Sleep(spell - time.Since(began))
	n.heal()
}

// TestNetwork has SDK clients talk over networks that are bad in every way, and
// whole again: nothing is lost or comes twice.
func TestNetwork(t *testing.T) {
	needFaults(t)
	t.Parallel()
	spells := times(t, "REPRISE_SPELLS", 2)
	for _, b := range badNetworks {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			p := newProcess(t, "")
			p.start()
			n := newNetwork(t, p.grpc)
			if b.before != nil {
				b.before(n)
			}
			l := newLoad(t, p, loadConfig{addresses: func(int) []string { return []string{n.address()} }})
			members := l.clients
			for range spells {
				l.talk()
				l.waitAcknowledged(20)
				b.once(n, p)
				l.recovered(time.Now())
			}
			r := l.finish(b.fault, spells)
			if least := uint64(spells * len(members)); b.cuts && r.Resumes < least {
				t.Errorf("%d resumes, of at least %d: the network was not that bad", r.Resumes, least)
			}
		})
	}
}

// TestP6_BlackHole has the network swallow everything without closing anything.
// The clients find out by themselves that the server has gone silent, and come
// back another way; the server finds out by itself that one has not.
func TestP6_BlackHole(t *testing.T) {
	needFaults(t)
	t.Parallel()
	const clients = 4
	p := newProcess(t, "")
	p.start()
	hole, other := newNetwork(t, p.grpc), newNetwork(t, p.grpc)
	l := newLoad(t, p, loadConfig{clients: clients, addresses: func(int) []string {
		return []string{hole.address(), other.address()}
	}})
	stall(t, hole.address(), "connect", l.rooms[0], 0)
	l.talk()
	l.waitAcknowledged(20)
	if n := p.metrics()["reprise_streams"]; n != clients+1 {
		t.Fatalf("%v streams are live, of %d", n, clients+1)
	}
	hole.ail("timeout", 1, map[string]int{"timeout": 0})
	began := time.Now()
	l.waitAcknowledged(20)
	l.recovered(began)
	noticed := time.Since(began)
	if noticed > silentAfter {
		t.Errorf("the clients were back after %v", noticed)
	}
	for p.metrics()["reprise_streams"] != clients {
		if time.Since(began) > deadAfter {
			t.Errorf("%v after its network went, the stream of one that did not come back is live", time.Since(began))
			break
		}
		time.Sleep(100 * time.Millisecond) // the server tells nobody when it gives a stream up
	}
	t.Logf("the clients were back after %v, the server gave up the one that was not after %v", noticed, time.Since(began))
	l.finish("network that swallows everything and closes nothing", 1)
}

// silentAfter bounds when a client of several addresses is back after its server
// went silent: it waits 30 s, looks every 5 s, and then tries the next address.
const silentAfter = 40 * time.Second

// deadAfter bounds when a server gives up a connection of which it hears
// nothing: it asks after 20 s, and waits 40 s for the answer.
const deadAfter = 70 * time.Second
