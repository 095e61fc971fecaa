package reprise

import (
	"context"
	"errors"
	"iter"
)

// Client is one running program's connection to Reprise. Its methods are safe
// for concurrent use. Close it when it is no longer needed.
type Client struct {
	cfg Config
}

var errSkeleton = errors.New("reprise: not there yet")

// New returns a Client, without connecting.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Client{cfg: cfg}, nil
}

// Run attaches, resumes after every loss, and hands h what happens, until ctx
// ends (then it says goodbye, with what was handled saved and acknowledged,
// and returns nil), h returns an error (returned, wrapped), or something
// happens that trying again would not cure: ErrFenced, ErrSessionHeld,
// ErrUnauthenticated (with a token fetched anew), ErrPermissionDenied,
// ErrInvalid, an unimplemented method, or an error of the position store.
//
// One Run at a time; another may follow, and goes on where the one before
// ended.
func (c *Client) Run(ctx context.Context, h Handler) error { return errSkeleton }

// Close ends Run, waits for it, and closes the connections. Sends that wait
// return ErrClosed.
func (c *Client) Close() error { return nil }

// State returns what the client is doing now.
func (c *Client) State() State { return State{} }

// Receipt confirms that an event is durable.
type Receipt struct {
	Room        string
	Incarnation string
	Offset      uint64
}

// SendOption changes how an event is sent.
type SendOption func(*sendOptions)

type sendOptions struct{ clientID string }

// WithClientID sends with the caller's own idempotency key: 1 to 64
// characters out of A-Z a-z 0-9 and "_.:-". A program that must not send twice
// even after it was restarted keeps the key with what it wants to send.
// Without it each call has a random one.
func WithClientID(id string) SendOption { return func(o *sendOptions) { o.clientID = id } }

// Send posts a text to a room the user is a member of and returns when the
// event is durable. It is retried with the same client id, over reconnects and
// servers, until there is a receipt, the server refuses it for good (an
// [*Error]), or ctx ends (an [*UnknownOutcomeError] if it was ever sent).
//
// While Run is running it waits for the attachment; otherwise it is a call of
// its own, without a session. Sequential calls keep their order. At most 16
// are in flight; further ones wait.
func (c *Client) Send(ctx context.Context, room, text string, opts ...SendOption) (Receipt, error) {
	return Receipt{}, errSkeleton
}

// SendCustom posts an application's own event, as [Client.Send]. typ is 1 to
// 64 characters out of A-Z a-z 0-9 and "_.:-"; data is valid UTF-8, often
// JSON.
func (c *Client) SendCustom(ctx context.Context, room, typ, data string, opts ...SendOption) (Receipt, error) {
	return Receipt{}, errSkeleton
}

// Join makes the user a member of a room; a room that does not exist is
// created open. While Run is running the room and, first, its newest history
// events (at most 1000) are delivered to the handler. Joining twice changes
// nothing.
func (c *Client) Join(ctx context.Context, room string, history uint32) (*Room, error) {
	return nil, errSkeleton
}

// Leave ends the user's membership of a room.
func (c *Client) Leave(ctx context.Context, room string) error { return errSkeleton }

// CreateOptions describe a room to be created.
type CreateOptions struct {
	// Title for people, at most 256 bytes.
	Title string
	// Private lets in only the creator and Members.
	Private bool
	// Members are further first members, at most 100.
	Members []string
	// Retention of the room; nil for the server's default.
	Retention *Retention
}

// Create creates a room with the user as its first member.
func (c *Client) Create(ctx context.Context, room string, opts CreateOptions) (*Room, error) {
	return nil, errSkeleton
}

// GetRoom returns one of the user's rooms.
func (c *Client) GetRoom(ctx context.Context, room string) (*Room, error) { return nil, errSkeleton }

// ListRooms returns the user's rooms by name, fetching page after page. It
// ends after the first error.
func (c *Client) ListRooms(ctx context.Context) iter.Seq2[*Room, error] {
	return func(yield func(*Room, error) bool) {}
}

// ListMembers returns the members of one of the user's rooms by name,
// fetching page after page. It ends after the first error.
func (c *Client) ListMembers(ctx context.Context, room string) iter.Seq2[*Member, error] {
	return func(yield func(*Member, error) bool) {}
}

// Range selects events of a room.
type Range struct {
	// After and Before bound the offsets, both exclusive; Before 0 is no
	// bound.
	After, Before uint64
	// Limit is how many events at most; 100 if 0, at most 1000.
	Limit int
	// Newest returns the newest events of the range instead of the oldest,
	// still in ascending order: for scrolling back.
	Newest bool
}

// Page is a range of a room's log, in ascending order.
type Page struct {
	Events []Event
	// Gap is what retention removed from the start of the range, or nil.
	Gap *Gap
	// Head and Oldest are the room's newest and oldest retained offset.
	Head, Oldest uint64
	// More reports that the range has more events than were returned.
	More bool
}

// ListEvents returns part of a room's log, without a session.
func (c *Client) ListEvents(ctx context.Context, room string, r Range) (Page, error) {
	return Page{}, errSkeleton
}

// ListSessions returns the user's sessions, oldest first.
func (c *Client) ListSessions(ctx context.Context) ([]*Session, error) { return nil, errSkeleton }

// EndSession ends one of the user's sessions: its positions are forgotten, a
// live stream of it ends.
func (c *Client) EndSession(ctx context.Context, id string) error { return errSkeleton }

// TailOptions select what [Client.Tail] reads.
type TailOptions struct {
	// After is where to start, 0 for the oldest; Incarnation is what it
	// belongs to, if known.
	After       uint64
	Incarnation string
	// Last starts so that the newest Last events come first, at most 10000;
	// After is then ignored.
	Last uint32
	// Limit ends the reading after so many events; 0 does not.
	Limit uint64
	// Follow goes on with live events when caught up.
	Follow bool
}

// Tail reads one room without a session and without positions. It returns nil
// when it is caught up (unless Follow), after Limit events, or when ctx ends.
// If no server can be reached at the start it returns that error; a stream
// that is lost later is taken up again after the last event that was handled.
// h may implement [CaughtUpHandler].
func (c *Client) Tail(ctx context.Context, room string, opts TailOptions, h Handler) error {
	return errSkeleton
}

// Gaps returns the open recoverable gaps of the session: ranges that were not
// delivered and that [Client.FetchGap] may still get. They are known while
// and after Run runs.
func (c *Client) Gaps() []Gap { return nil }

// FetchGap returns the events of a gap, fetching page after page. What the
// caller has consumed of an open gap is taken off it; when all was consumed
// the gap is closed. It ends after the first error. Events of a gap are not
// part of the exactly-once delivery: a program that is killed in between may
// fetch some again.
func (c *Client) FetchGap(ctx context.Context, g Gap) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {}
}
