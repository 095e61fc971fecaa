package witness

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	reprise "github.com/reprise-chat/reprise/client"
	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/internal/history"
)

// Client is a [reprise.Handler] that writes down what it is given; with
// [Client.Observe] among the dial options, what the streams bring as well. It
// outlives the SDK clients that it is given to one after another. Its methods
// are safe for concurrent use.
type Client struct {
	name   string
	trace  *history.Trace
	before func(reprise.Event) // the handler's own work; may be nil
	counts Counts

	streams atomic.Uint64 // opened so far
	window  atomic.Uint64 // of the trace

	mu   sync.Mutex
	held map[string]place // by room: what the trace says it holds
}

// place is what a client holds of a room.
type place struct {
	off uint64
	inc string
}

// Counts are of everything a Client was given.
type Counts struct {
	Events   atomic.Uint64 // handed over
	Replayed atomic.Uint64 // of those, as a replay
	Gaps     atomic.Uint64
	Rewinds  atomic.Uint64
	Resumes  atomic.Uint64 // Welcomes that were not to a new session
}

// New returns the witness of one user's program. Before, if not nil, is called
// with each event before it is written down, on the handler's goroutine.
func New(name string, trace *history.Trace, before func(reprise.Event)) *Client {
	return &Client{name: name, trace: trace, before: before, held: make(map[string]place)}
}

// Name returns what the records are written under.
func (c *Client) Name() string { return c.name }

// Counts returns the counters, which go on counting.
func (c *Client) Counts() *Counts { return &c.counts }

// Holds returns the offset up to which c was handed a room, and whether it is
// in the room at all.
func (c *Client) Holds(room string) (uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.held[room]
	return at.off, ok
}

// BeginWindow writes down what c holds, after the trace was taken. Nothing may
// be delivered to it meanwhile.
func (c *Client) BeginWindow() {
	c.window.Add(1)
	c.mu.Lock()
	held := maps.Clone(c.held)
	c.mu.Unlock()
	for room, at := range held {
		c.trace.Add(history.Record{P: c.name, K: history.Place, Room: room, Off: at.off, Inc: at.inc})
	}
}

// Place writes down where c starts in a room, if it was given the position of
// another program.
func (c *Client) Place(at reprise.Position) {
	c.trace.Add(history.Record{P: c.name, K: history.Place, Room: at.Room, Off: at.Offset, Inc: at.Incarnation})
	c.hold(at.Room, at.Offset, at.Incarnation)
}

// Publish writes down one attempt of a publish, send, and how it ended. The id
// is the client id, without the sender. It returns what send returned.
func (c *Client) Publish(room, id string, send func() (reprise.Receipt, error)) (reprise.Receipt, error) {
	r := history.Record{P: c.name + "/" + id, K: history.Publish, Room: room, ID: c.name + "/" + id}
	end := func(ph history.Phase) { r.Ph = ph; c.trace.Add(r) }
	end(history.Call)
	receipt, err := send()
	var refused *reprise.Error
	switch {
	case err == nil:
		r.Off, r.Inc = receipt.Offset, receipt.Incarnation
		end(history.OK)
	case errors.As(err, &refused) && refused.Code == codes.NotFound:
		end(history.Fail) // not a member: a retry of what succeeded is looked up before that
	default:
		end(history.Unknown)
	}
	return receipt, err
}

func (c *Client) hold(room string, off uint64, inc string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held[room] = place{off, inc}
}

// HandleEvent implements [reprise.Handler].
func (c *Client) HandleEvent(_ context.Context, e reprise.Event) error {
	if c.before != nil {
		c.before(e)
	}
	r := Describe(e.Room, e.Incarnation, e.Proto)
	r.P, r.K, r.Replayed = c.name, history.Deliver, e.Replayed
	c.trace.Add(r)
	c.counts.Events.Add(1)
	if e.Replayed {
		c.counts.Replayed.Add(1)
	}
	c.hold(e.Room, e.Offset, e.Incarnation)
	return nil
}

// HandleGap implements [reprise.Handler].
func (c *Client) HandleGap(_ context.Context, g reprise.Gap) error {
	c.trace.Add(history.Record{P: c.name, K: history.Gap, Room: g.Room, First: g.First, Off: g.Last, Inc: g.Incarnation})
	c.counts.Gaps.Add(1)
	c.hold(g.Room, g.Last, g.Incarnation)
	return nil
}

// HandleRewind implements [reprise.Handler].
func (c *Client) HandleRewind(_ context.Context, r reprise.Rewind) error {
	c.trace.Add(history.Record{P: c.name, K: history.Rewind, Room: r.Room, Off: r.To, Inc: r.Incarnation})
	c.counts.Rewinds.Add(1)
	c.hold(r.Room, r.To, r.Incarnation)
	return nil
}

// HandleStart implements [reprise.StartHandler].
func (c *Client) HandleStart(_ context.Context, p reprise.Position) error {
	if _, ok := c.Holds(p.Room); !ok {
		c.Place(p)
	}
	return nil
}

// HandleRoom implements [reprise.RoomHandler]. Where a room that the client
// holds starts again is between the SDK and the server: the SDK drops what it
// has handled.
func (c *Client) HandleRoom(context.Context, reprise.RoomState) error { return nil }

// HandleRoomClosed implements [reprise.RoomHandler].
func (c *Client) HandleRoomClosed(_ context.Context, r reprise.RoomClosed) error {
	c.trace.Add(history.Record{P: c.name, K: history.Closed, Room: r.Room, Off: r.Offset})
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.held, r.Room)
	return nil
}

// Describe returns an event as the checker wants it, of no kind and nobody's.
func Describe(room, incarnation string, e *reprisev1.Event) history.Record {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		panic(fmt.Sprint("an event that came off the wire does not encode: ", err))
	}
	sum := sha256.Sum256(b)
	r := history.Record{Room: room, Inc: incarnation, Off: e.GetOffset(), After: e.GetAfter(), Hash: hex.EncodeToString(sum[:8])}
	if e.GetClientId() != "" {
		r.ID = e.GetSender() + "/" + e.GetClientId()
	}
	return r
}

// ReadLog returns a room's log after an offset, as records of kind Final of a
// client named "final". Trimmed reports that retention has removed some of it.
func ReadLog(ctx context.Context, sdk *reprise.Client, room string, after uint64) (log []history.Record, trimmed bool, err error) {
	for more := true; more; {
		page, err := sdk.ListEvents(ctx, room, reprise.Range{After: after, Limit: 1000})
		if err != nil {
			return nil, false, fmt.Errorf("reading %s after %d: %w", room, after, err)
		}
		trimmed = trimmed || page.Gap != nil
		for _, e := range page.Events {
			r := Describe(e.Room, e.Incarnation, e.Proto)
			r.P, r.K = "final", history.Final
			log = append(log, r)
			after = e.Offset
		}
		more = page.More
	}
	return log, trimmed, nil
}
