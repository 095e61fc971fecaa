package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/reprise-chat/reprise/bench/internal/lean"
	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// Tags of reprise.v1 that are read and written without the generated code.
const (
	tagFrameEvents  = 6<<3 | 2
	tagFrameReceipt = 8<<3 | 2

	tagEventsRoom        = 1<<3 | 2
	tagEventsIncarnation = 2<<3 | 2
	tagEventsEvents      = 3<<3 | 2

	tagEventOffset  = 1<<3 | 1
	tagEventAfter   = 2<<3 | 1
	tagEventMessage = 6<<3 | 2

	tagRequestID    = 1<<3 | 2 // of ClientFrame and of Receipt
	tagSendMessage  = 4<<3 | 2
	tagSendRoom     = 2<<3 | 2
	tagSendClientID = 3<<3 | 2
	tagSendText     = 4<<3 | 2
	tagMessageText  = 1<<3 | 2
	stalledWindow   = 64 << 10
	deafWindow      = 1 // bytes; one event is sent, and then none
	doorConnect     = "/reprise.v1.ChatService/Connect"
	doorOpen        = "/reprise.v1.ChatService/Open"
	doorResume      = "/reprise.v1.ChatService/Resume"
	maxFocus        = 100
)

var errFrame = errors.New("load: a frame that makes no sense")

// position is the place of a client of reprise.v1.
type position struct {
	session, key string
	attach       uint64
	rooms        []at
}

// at is how far one room was read.
type at struct {
	incarnation string
	offset      uint64
}

// client speaks reprise.v1. It checks that events follow one another as the
// contract says: each one's after is the offset of the one before it.
type client struct {
	cfg    Config
	on     On
	h2     *lean.H2
	stream *lean.Stream
	closed bool

	index map[string]int
	place position
	last  int // index of the room of the frame before: mostly the same again
	frame []byte
	send  []byte
}

func dialReprise(loop *lean.Loop, addr netip.AddrPort, cfg Config, on On) Client {
	c := &client{cfg: cfg, on: on, index: make(map[string]int, len(cfg.Rooms))}
	for i, r := range cfg.Rooms {
		c.index[r] = i
	}
	c.place.rooms = make([]at, len(cfg.Rooms))
	c.h2 = &lean.H2{Window: lean.Generous, Ready: func(*lean.H2) { c.connected() }, Gone: c.gone}
	if cfg.Stalled {
		c.h2.Window = stalledWindow
	}
	loop.Dial(addr, c.h2)
	return c
}

func (c *client) connected() {
	if !c.cfg.Hold {
		c.Attach()
		return
	}
	if c.on.Connected != nil {
		c.on.Connected()
	}
}

// Attach implements Client: it opens the stream.
func (c *client) Attach() {
	var window uint32
	if c.cfg.Deaf {
		window = deafWindow
	}
	frame := &reprisev1.ClientFrame{}
	door := doorConnect
	if c.cfg.Resume == nil {
		open := &reprisev1.OpenRequest{Window: window, Focus: c.focus()}
		frame.Frame = &reprisev1.ClientFrame_Open{Open: open}
		if c.cfg.ReadOnly {
			door = doorOpen
		}
	} else {
		frame.Frame = &reprisev1.ClientFrame_Resume{Resume: c.resume(window)}
		if c.cfg.ReadOnly {
			door = doorResume
		}
	}
	var m proto.Message = frame
	switch {
	case door == doorOpen:
		m = frame.GetOpen()
	case door == doorResume:
		m = frame.GetResume()
	}
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // strings of ours
	}
	c.stream = c.h2.Open(door, "dev:"+c.cfg.User, c)
	c.stream.Send(b, c.cfg.ReadOnly)
}

// focus names the rooms: a courtesy to reprise, and all that the bare server
// knows of membership. Who is deaf wants none.
func (c *client) focus() []string {
	if c.cfg.Deaf {
		return nil
	}
	return c.cfg.Rooms[:min(len(c.cfg.Rooms), maxFocus)]
}

func (c *client) resume(window uint32) *reprisev1.ResumeRequest {
	p, _ := c.cfg.Resume.(position)
	r := &reprisev1.ResumeRequest{
		SessionId: p.session, ResumeKey: p.key, Window: window, Focus: c.focus(),
	}
	for i, a := range p.rooms {
		r.Positions = append(r.Positions, &reprisev1.Position{Room: c.cfg.Rooms[i], Incarnation: a.incarnation, Offset: a.offset})
	}
	c.place.rooms = append([]at(nil), p.rooms...)
	return r
}

// Publish implements Client. The frame is put together by hand: the generated
// code would cost the publisher more than the server.
func (c *client) Publish(room int, number uint64, id string, body []byte) {
	m := c.send[:0]
	m = appendString(m, tagSendRoom, c.cfg.Rooms[room])
	if id != "" {
		m = appendString(m, tagSendClientID, id)
	}
	m = append(m, tagSendText)
	m = protowire.AppendBytes(m, body)
	c.send = m

	f := c.frame[:0]
	f = append(f, tagRequestID, 0)
	f = strconv.AppendUint(f, number, 10)
	f[1] = byte(len(f) - 2)
	f = append(f, tagSendMessage)
	f = protowire.AppendBytes(f, m)
	c.frame = f
	c.stream.Send(f, false)
}

func appendString(b []byte, tag byte, s string) []byte {
	return protowire.AppendString(append(b, tag), s)
}

// Close implements Client.
func (c *client) Close() {
	c.closed = true
	if conn := c.h2.Conn(); conn != nil {
		conn.Close()
	}
}

func (c *client) gone(err error) {
	if c.closed {
		return
	}
	c.closed = true
	if c.on.Lost != nil {
		c.on.Lost(err)
	}
}

// EndError is how a server ended a client's stream.
type EndError struct {
	Code    int // a canonical gRPC code
	Message string
	// Slot is when to come again, from RetryInfo; 0 if there is none.
	Slot time.Duration
}

func (e *EndError) Error() string {
	return fmt.Sprintf("load: the stream ended with status %d %s", e.Code, e.Message)
}

// End implements lean.Handler.
func (c *client) End(code int, message string, details []byte) {
	c.gone(&EndError{code, message, slotIn(details)})
	if conn := c.h2.Conn(); conn != nil {
		conn.Close()
	}
}

// slotIn returns the delay that an encoded google.rpc.Status tells.
func slotIn(details []byte) time.Duration {
	p := new(spb.Status)
	if len(details) == 0 || proto.Unmarshal(details, p) != nil {
		return 0
	}
	for _, d := range status.FromProto(p).Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			return r.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

// Message implements lean.Handler.
func (c *client) Message(b []byte) error {
	if len(b) == 0 {
		return errFrame
	}
	var err error
	switch b[0] {
	case tagFrameEvents:
		var events []byte
		if events, err = payload(b); err == nil {
			err = c.events(events)
		}
	case tagFrameReceipt:
		var receipt []byte
		if receipt, err = payload(b); err == nil {
			err = c.receipt(receipt)
		}
	default:
		err = c.other(b)
	}
	if err != nil && !errors.Is(err, errFrame) {
		return fmt.Errorf("user %s: %w", c.cfg.User, err)
	}
	return err
}

// payload returns the one field that a frame consists of.
func payload(b []byte) ([]byte, error) {
	p, n := protowire.ConsumeBytes(b[1:])
	if n < 0 || 1+n != len(b) {
		return nil, fmt.Errorf("%w: %x", errFrame, b[:min(len(b), 16)])
	}
	return p, nil
}

func (c *client) receipt(b []byte) error {
	if len(b) < 2 || b[0] != tagRequestID {
		return fmt.Errorf("%w: receipt without request_id", errFrame)
	}
	id, n := protowire.ConsumeBytes(b[1:])
	if n < 0 {
		return errFrame
	}
	number, err := strconv.ParseUint(string(id), 10, 64)
	if err != nil {
		return fmt.Errorf("%w: receipt of %q", errFrame, id)
	}
	if c.on.Receipt != nil {
		c.on.Receipt(number, nil)
	}
	return nil
}

// other takes the frames that are rare.
func (c *client) other(b []byte) error {
	var f reprisev1.ServerFrame
	if err := proto.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	switch v := f.GetFrame().(type) {
	case *reprisev1.ServerFrame_Welcome:
		w := v.Welcome
		c.place.session, c.place.key, c.place.attach = w.GetSessionId(), w.GetResumeKey(), w.GetAttach()
		if o := w.GetOutcome(); c.cfg.Resume != nil && o != reprisev1.Outcome_OUTCOME_EXACT {
			return fmt.Errorf("load: the outcome of a resume is %v", o)
		}
	case *reprisev1.ServerFrame_RoomState:
		p := v.RoomState.GetPosition()
		if i, ok := c.index[p.GetRoom()]; ok && c.cfg.Resume == nil {
			c.place.rooms[i] = at{p.GetIncarnation(), p.GetOffset()}
		}
	case *reprisev1.ServerFrame_CaughtUp:
		if v.CaughtUp.GetRoom() == "" {
			c.ready()
		}
	case *reprisev1.ServerFrame_Heartbeat:
		// Said by the socket already: it answers.
	case *reprisev1.ServerFrame_Fault:
		number, err := strconv.ParseUint(v.Fault.GetRequestId(), 10, 64)
		if err != nil || c.on.Receipt == nil {
			return fmt.Errorf("load: fault %v", v.Fault)
		}
		c.on.Receipt(number, fmt.Errorf("load: %s: %s", v.Fault.GetReason(), v.Fault.GetMessage()))
	case *reprisev1.ServerFrame_Gap, *reprisev1.ServerFrame_Rewind:
		return fmt.Errorf("load: events are kept back: %v", &f)
	}
	return nil
}

// ready tells the scenario, once.
func (c *client) ready() {
	if r := c.on.Ready; r != nil {
		c.on.Ready = nil
		p := c.place
		p.rooms = append([]at(nil), p.rooms...)
		r(p)
	}
}

// events takes an Events frame apart.
func (c *client) events(b []byte) error {
	room, b, err := field(b, tagEventsRoom)
	if err != nil {
		return err
	}
	incarnation, b, err := field(b, tagEventsIncarnation)
	if err != nil {
		return err
	}
	if string(room) != c.cfg.Rooms[c.last] { // does not allocate
		i, ok := c.index[string(room)]
		if !ok {
			return fmt.Errorf("load: an event of room %q, which nobody asked for", room)
		}
		c.last = i
	}
	p := &c.place.rooms[c.last]
	if p.incarnation != string(incarnation) {
		p.incarnation = string(incarnation)
	}
	for len(b) > 0 {
		var e []byte
		if e, b, err = field(b, tagEventsEvents); err != nil {
			return err
		}
		if err := c.event(p, e); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) event(p *at, e []byte) error {
	if len(e) < 9 || e[0] != tagEventOffset {
		return fmt.Errorf("%w: event %x", errFrame, e[:min(len(e), 18)])
	}
	offset, after := binary.LittleEndian.Uint64(e[1:]), uint64(0)
	if e = e[9:]; len(e) >= 9 && e[0] == tagEventAfter { // 0 may be left out
		after, e = binary.LittleEndian.Uint64(e[1:]), e[9:]
	}
	if after != p.offset || offset <= after {
		return fmt.Errorf("load: event %d says that it follows %d, but came after %d", offset, after, p.offset)
	}
	p.offset = offset
	body, err := text(e)
	if err != nil || body == nil || c.on.Event == nil {
		return err // nil for what is not a message
	}
	return c.on.Event(c.last, body)
}

// text finds the text of the message in the rest of an event; nil if it is
// another kind of event.
func text(e []byte) ([]byte, error) {
	for len(e) > 0 {
		tag := e[0]
		if tag&7 != 2 { // every field of Event after the first two is one of these
			return nil, fmt.Errorf("%w: field %#x", errFrame, tag)
		}
		v, rest, err := field(e, tag)
		if err != nil {
			return nil, err
		}
		if tag == tagEventMessage {
			t, _, err := field(v, tagMessageText)
			return t, err
		}
		e = rest
	}
	return nil, nil
}

// field takes a length-delimited field off the front of b.
func field(b []byte, tag byte) (v, rest []byte, err error) {
	if len(b) < 2 || b[0] != tag {
		return nil, nil, fmt.Errorf("%w: no field %#x at %x", errFrame, tag, b[:min(len(b), 16)])
	}
	n, k := int(b[1]), 1
	if n >= 0x80 {
		var u uint64
		if u, k = binary.Uvarint(b[1:]); k <= 0 || u > uint64(len(b)) {
			return nil, nil, errFrame
		}
		n = int(u)
	}
	if len(b) < 1+k+n {
		return nil, nil, fmt.Errorf("%w: cut off", errFrame)
	}
	return b[1+k : 1+k+n], b[1+k+n:], nil
}
