package command

import (
	"strings"
	"testing"
)

func TestServeLimits(t *testing.T) {
	h := serveIn(t, t.TempDir(), "", "--limit-user-rooms", "1", "--limit-user-publishes", "0.01")
	alice := newPerson(t, "alice", h.GRPC)
	alice.ok("", "rooms", "join", "first")
	if r := alice.run("", "rooms", "join", "second"); r.code != exitFailure || !strings.Contains(r.err, "at most 1") {
		t.Errorf("a second room: exit code %d, %s", r.code, r.err)
	}
	// That the room was made and that she joined are two events: the burst.
	if r := alice.run("", "send", "first", "hello", "--timeout", "1s"); r.code == exitOK {
		t.Error("a third event was taken")
	}

	// None at all.
	h = serveIn(t, t.TempDir(), "", "--limit-user-publishes", "-1", "--limit-room-publishes", "-1")
	bob := newPerson(t, "bob", h.GRPC)
	bob.ok("", "rooms", "join", "first")
	for range 5 {
		bob.ok("", "send", "first", "hello")
	}
}

func TestServeLimitsRefuseNonsense(t *testing.T) {
	for _, args := range [][]string{
		{"--limit-attaches", "0"},
		{"--limit-address-web-calls", "0"},
		{"--limit-address-web-connections", "0"},
		{"--limit-web-calls", "0"},
		{"--limit-web-connections", "-1"},
		{"--limit-room-publishes", "-2"},
		{"--limit-user-creates", "0"},
		{"--limit-user-publishes", "NaN"},
		{"--limit-user-rooms", "0"},
		{"--limit-user-sessions", "-1"},
		{"--limit-user-tails", "0"},
		{"--limit-connections", "-1"},
		{"--limit-address-connections", "0"},
		{"--limit-connection-streams", "0"},
	} {
		r := newPerson(t, "alice", "").run("", append([]string{"serve", "--dir", t.TempDir()}, args...)...)
		if r.code != exitUsage || !strings.Contains(r.err, args[0]+" must be more than 0") {
			t.Errorf("%v: exit code %d, %s", args, r.code, r.err)
		}
	}
}
