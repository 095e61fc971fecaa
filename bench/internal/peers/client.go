package peers

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/reprise-chat/reprise/bench/internal/load"
)

// common is what the clients of all peers share. It is used on the loop's
// thread only.
type common struct {
	cfg   load.Config
	on    load.On
	index map[string]int // of rooms
	last  int            // room of the event before: mostly the same again
	// unanswered counts the rooms that the server has not confirmed yet.
	unanswered int
	closed     bool
}

// newCommon is for scenarios that neither resume nor stall: peers differ in
// what they do then, so there is no figure to compare.
func newCommon(cfg load.Config, on load.On) common {
	if cfg.Resume != nil || cfg.Stalled {
		panic("peers: a client of a peer cannot resume or stall")
	}
	c := common{cfg: cfg, on: on, index: make(map[string]int, len(cfg.Rooms))}
	for i, r := range cfg.Rooms {
		c.index[r] = i
	}
	return c
}

// connected attaches, or tells the scenario, which does later.
func (c *common) connected(attach func()) {
	if !c.cfg.Hold {
		attach()
		return
	}
	if c.on.Connected != nil {
		c.on.Connected()
	}
}

// joined counts the rooms that are confirmed.
func (c *common) joined() {
	if c.unanswered--; c.unanswered == 0 {
		c.ready()
	}
}

func (c *common) ready() {
	if c.on.Ready != nil {
		c.on.Ready(nil)
	}
}

func (c *common) gone(err error) {
	if !c.closed && c.on.Lost != nil {
		c.on.Lost(fmt.Errorf("user %s: %w", c.cfg.User, err))
	}
	c.closed = true
}

// event tells of an event of the room with that name.
func (c *common) event(room, body []byte) error {
	if string(room) != c.cfg.Rooms[c.last] { // does not allocate
		i, ok := c.index[string(room)]
		if !ok {
			return fmt.Errorf("%w: an event of room %q, which nobody asked for", errProtocol, room)
		}
		c.last = i
	}
	if c.on.Event == nil {
		return nil
	}
	return c.on.Event(c.last, body)
}

func (c *common) receipt(number uint64, err error) {
	if c.on.Receipt != nil {
		c.on.Receipt(number, err)
	}
}

// noSetup is the Setup of servers that know no members.
type noSetup struct{}

// Setup implements load.Target: there is nothing to do, because whoever asks
// for a room gets its events.
func (noSetup) Setup(context.Context, netip.AddrPort, []load.Membership) error { return nil }

func loopback(port uint16) string { return "127.0.0.1:" + strconv.Itoa(int(port)) }
