package load

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/reprise-chat/reprise/bench/internal/lean"
	"github.com/reprise-chat/reprise/bench/internal/proc"
)

// Target is one kind of server.
type Target interface {
	// Name is how reports call it.
	Name() string
	// Start starts a process that keeps its data, if any, in dir, and listens
	// on that port of loopback; 0: any free one. The caller ends it.
	Start(dir string, port uint16) (*proc.Server, error)
	// Setup makes rooms and memberships, before anybody is attached.
	Setup(ctx context.Context, addr netip.AddrPort, memberships []Membership) error
	// Dial begins to connect a client. It is called on the loop's thread.
	Dial(loop *lean.Loop, addr netip.AddrPort, c Config, on On) Client
}

// Membership is a user and the rooms to join.
type Membership struct {
	User  string
	Rooms []string
}

// Config is what a client is to be.
type Config struct {
	User string
	// Rooms are those that the user is a member of; Publish and On.Event speak
	// of them by index.
	Rooms []string
	// ReadOnly clients never publish, and may use a door that is cheaper.
	ReadOnly bool
	// Deaf clients publish, and want as few events as the protocol allows.
	Deaf bool
	// Stalled clients take events until what the protocol grants by itself is
	// used up, and then no more, for ever. They stay connected.
	Stalled bool
	// Resume goes on from a place; nil begins anew.
	Resume Place
	// Hold has the client connect, and attach only when it is told to.
	Hold bool
}

// Place is where a client was, and what it needs to go on from there. Its
// content is the target's own.
type Place any

// On are callbacks on the loop's thread. Nil ones are not called.
type On struct {
	// Connected: a client that was told to Hold can attach.
	Connected func()
	// Ready: attached, and everything that was there has been delivered. The
	// place is where the client is then.
	Ready func(Place)
	// Event: an event of the room with that index. An error ends the client.
	Event func(room int, body []byte) error
	// Receipt: the event published with that number is acknowledged or
	// refused.
	Receipt func(number uint64, err error)
	// Lost is called last, when the client was not closed by the caller.
	Lost func(error)
}

// Client is one user's connection. It is used on its loop's thread only.
type Client interface {
	// Publish publishes to the room of that index. number comes back in the
	// receipt; id, if not empty, is the idempotency key.
	Publish(room int, number uint64, id string, body []byte)
	// Attach attaches a client that holds.
	Attach()
	// Close ends it without a word.
	Close()
}

// Counter checks and counts the events of one client. It is used on the loop's
// thread only.
type Counter struct {
	// Events is how many came.
	Events uint64
	// last is the newest number by room.
	last []uint64
}

// NewCounter expects events of that many rooms.
func NewCounter(rooms int) *Counter { return &Counter{last: make([]uint64, rooms)} }

// Expect has the next event of a room be the one after number.
func (c *Counter) Expect(room int, number uint64) { c.last[room] = number }

// Last returns the newest number of a room.
func (c *Counter) Last(room int) uint64 { return c.last[room] }

// Add takes an event. It is an error if it is not the next one of its room.
func (c *Counter) Add(room int, number uint64) error {
	if number != c.last[room]+1 {
		return fmt.Errorf("load: event %d of room %d came after event %d: lost, repeated or out of order", number, room, c.last[room])
	}
	c.last[room] = number
	c.Events++
	return nil
}
