package reprise

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// maxInFlight is how many sends are under way at a time. Servers allow 32.
const maxInFlight = 16

// Receipt confirms that an event is durable.
type Receipt struct {
	Room        string
	Incarnation string
	Offset      uint64
	// Time is when the server accepted the event, by its clock.
	Time time.Time
	// ClientID is the idempotency key it was sent with.
	ClientID string
	// Duplicate reports that the event was there already: an earlier attempt,
	// of this call or of one before, had succeeded.
	Duplicate bool
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
// [*Error]), or ctx ends (an [*UnknownOutcomeError] if it was ever sent). What
// no server would take is ErrInvalid at once: a text that is empty, is not
// UTF-8 or has more bytes than the server has said it takes (64 KiB unless
// configured), or a room that can be none's name. How one send ends is nothing
// to the others.
//
// While Run is running it waits for the attachment, and for Run to join the room
// if that is one of Config.Rooms; for such a room it waits for the first Run too.
// Otherwise it is a call of its own, without a session. Sequential calls keep their order. At most 16
// are in flight; further ones wait.
func (c *Client) Send(ctx context.Context, room, text string, opts ...SendOption) (Receipt, error) {
	return c.send(ctx, message{room: room, text: text}, opts)
}

// SendCustom posts an application's own event, as [Client.Send]. typ is 1 to
// 64 characters out of A-Z a-z 0-9 and "_.:-"; data is valid UTF-8, often
// JSON.
func (c *Client) SendCustom(ctx context.Context, room, typ, data string, opts ...SendOption) (Receipt, error) {
	return c.send(ctx, message{room: room, typ: typ, data: data, custom: true}, opts)
}

// message is what a send sends, in whatever form.
type message struct {
	room, clientID string
	custom         bool
	text           string // of a message
	typ, data      string // of a custom event
}

func (m message) frame(id string) *reprisev1.ClientFrame {
	f := &reprisev1.ClientFrame{RequestId: id}
	if m.custom {
		f.Frame = &reprisev1.ClientFrame_SendCustom{SendCustom: m.sendCustom(nil)}
	} else {
		f.Frame = &reprisev1.ClientFrame_SendMessage{SendMessage: m.sendMessage(nil)}
	}
	return f
}

func (m message) sendMessage(via *reprisev1.Via) *reprisev1.SendMessageRequest {
	return &reprisev1.SendMessageRequest{Via: via, Room: m.room, ClientId: m.clientID, Text: m.text}
}

func (m message) sendCustom(via *reprisev1.Via) *reprisev1.SendCustomRequest {
	return &reprisev1.SendCustomRequest{Via: via, Room: m.room, ClientId: m.clientID, Type: m.typ, Data: m.data}
}

// send tries until there is an answer that counts.
func (c *Client) send(ctx context.Context, m message, opts []SendOption) (Receipt, error) {
	var o sendOptions
	for _, opt := range opts {
		opt(&o)
	}
	if m.clientID = o.clientID; m.clientID == "" {
		m.clientID = newID("go_")
	}
	if err := m.check(c.knownLimits()); err != nil {
		return Receipt{}, err
	}
	select {
	case c.inFlight <- struct{}{}:
		defer func() { <-c.inFlight }()
	case <-c.closed:
		return Receipt{}, ErrClosed
	case <-ctx.Done():
		return Receipt{}, ctx.Err()
	}
	return c.retrySend(ctx, m)
}

// maxLosses is how many streams in a row may end under one send before it goes
// by itself: should it be what ends them, it does not end any more.
const maxLosses = 4

func (c *Client) retrySend(ctx context.Context, m message) (Receipt, error) {
	if err := c.begun(ctx, m.room); err != nil {
		return Receipt{}, err // nothing was sent
	}
	var last error // of the attempts so far
	var lost *attachment
	t := tries{c: c}
	for losses := 0; ; {
		a, err := c.attached(ctx, lost, m.room)
		if err != nil {
			return Receipt{}, unknownOutcome(m, err, last)
		}
		receipt, err := c.trySend(ctx, a, m, losses >= maxLosses)
		switch {
		case err == nil:
			return receipt, nil
		case ctx.Err() != nil || errors.Is(err, ErrClosed):
			return Receipt{}, unknownOutcome(m, err, last)
		case a != nil && isReplaced(err):
			lost, last = a, err // the next attachment is asked, without a wait
			losses++
			continue
		}
		if err := t.again(ctx, err); err != nil {
			if isFinal(err) {
				return Receipt{}, err
			}
			return Receipt{}, unknownOutcome(m, err, last)
		}
		last = err
	}
}

// isReplaced reports whether something failed only because the attachment it
// was to speak for has ended.
func isReplaced(err error) bool {
	return errors.Is(err, errLost) || errors.Is(err, ErrFenced) || reasonOf(err) == "NOT_ATTACHED"
}

// tries are the attempts at one call.
type tries struct {
	c         *Client
	failures  int
	refreshed bool // the token was
}

// again waits until the next attempt after one that failed with err. It returns
// err if that would be in vain, or why it was not waited for.
func (t *tries) again(ctx context.Context, err error) error {
	if errors.Is(err, ErrUnauthenticated) && !t.refreshed {
		t.refreshed = true // the token had expired, perhaps
		return nil
	}
	if isFinal(err) {
		return err
	}
	t.failures++
	cfg := &t.c.cfg
	if isNetwork(err) && t.failures < len(cfg.Addresses) {
		return nil // another one is next
	}
	wait := min(retryAfter(err), maxHint)
	if wait == 0 {
		wait = jitter(t.failures, cfg.BackoffMin, cfg.BackoffMax)
	}
	if isNetwork(err) {
		cfg.Logger.Warn("no answer, the call is made again", "retry_in", round(wait), "attempt", t.failures, "error", err)
	}
	return t.c.sleep(ctx, wait)
}

// sleep waits, unless ctx or the Client ends first.
func (c *Client) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.closed:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unknownOutcome is the error of a send that was given up: end itself when
// nothing was ever sent.
func unknownOutcome(m message, end, last error) error {
	if last == nil && (errors.Is(end, ErrClosed) || errors.Is(end, ErrFenced)) {
		return end
	}
	return &UnknownOutcomeError{Room: m.room, ClientID: m.clientID, Err: errors.Join(end, last)}
}

// trySend asks once: as a frame on the attachment's stream; as a call of its
// own if there is none, if it is to go alone, or if the stream is not read at
// the moment because the handler is busy, perhaps with this very send.
func (c *Client) trySend(ctx context.Context, a *attachment, m message, alone bool) (Receipt, error) {
	if a == nil {
		return c.callSend(ctx, nil, m)
	}
	if alone {
		return c.callSend(ctx, a.via, m)
	}
	receipt, err := a.send(ctx, m)
	if errors.Is(err, errStalled) || errors.Is(err, errUnfit) {
		return c.callSend(ctx, a.via, m)
	}
	return receipt, err
}

// errStalled: the answer on a stream is behind frames that wait for the
// handler. errUnfit: the stream might end by this frame.
var (
	errStalled = errors.New("reprise: the stream waits for the handler")
	errUnfit   = errors.New("reprise: not for a stream that others share")
)

// fits returns nil if a frame surely does no harm to the stream: it can be
// encoded, or gRPC would end the stream, and the server reads frames so large,
// or it would.
func (a *attachment) fits(f *reprisev1.ClientFrame) error {
	most := int(a.welcome.GetLimits().GetFrameBytes())
	if most == 0 {
		most = defaultFrameBytes
	}
	b, err := proto.Marshal(f)
	switch {
	case err != nil:
		return invalid("frame", "cannot be encoded: %v", err)
	case len(b) > most:
		return errUnfit
	}
	return nil
}

func (a *attachment) send(ctx context.Context, m message) (Receipt, error) {
	id, answers, stalled, err := a.request()
	if err != nil {
		return Receipt{}, err
	}
	defer a.unregister(id)
	frame := m.frame(id)
	if err := a.fits(frame); err != nil {
		return Receipt{}, err
	}
	select {
	case a.out <- frame:
	case <-stalled:
		return Receipt{}, errStalled
	case <-a.done:
		return Receipt{}, errLost
	case <-ctx.Done():
		return Receipt{}, ctx.Err()
	}
	select {
	case ans := <-answers:
		return receiptOf(m, ans)
	case <-stalled:
		return Receipt{}, errStalled
	case <-ctx.Done():
		return Receipt{}, ctx.Err()
	}
}

func receiptOf(m message, ans answer) (Receipt, error) {
	if ans.err != nil {
		return Receipt{}, ans.err
	}
	if r := ans.receipt.GetSendMessage(); r != nil {
		return messageReceipt(m, r), nil
	}
	if r := ans.receipt.GetSendCustom(); r != nil {
		return messageReceipt(m, r), nil
	}
	return Receipt{}, errors.Join(ErrProtocol, errors.New("a receipt of another kind than what was sent"))
}

func messageReceipt(m message, r interface {
	GetRoom() string
	GetIncarnation() string
	GetOffset() uint64
	GetTime() *timestamppb.Timestamp
	GetDuplicate() bool
}) Receipt {
	return Receipt{
		Room:        r.GetRoom(),
		Incarnation: r.GetIncarnation(),
		Offset:      r.GetOffset(),
		Time:        r.GetTime().AsTime(),
		ClientID:    m.clientID,
		Duplicate:   r.GetDuplicate(),
	}
}

// callSend sends as a unary call.
func (c *Client) callSend(ctx context.Context, via *reprisev1.Via, m message) (receipt Receipt, err error) {
	err = c.call(ctx, func(ctx context.Context, chat reprisev1.ChatServiceClient) error {
		if m.custom {
			r, err := chat.SendCustom(ctx, m.sendCustom(via))
			receipt = messageReceipt(m, r)
			return err
		}
		r, err := chat.SendMessage(ctx, m.sendMessage(via))
		receipt = messageReceipt(m, r)
		return err
	})
	if err == nil && receipt.Offset == 0 {
		return Receipt{}, fmt.Errorf("%w: an empty receipt", ErrProtocol) // not a server's
	}
	return receipt, err
}
