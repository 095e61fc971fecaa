package server_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// place is what a client knows of one room.
type place struct {
	last        uint64 // newest offset held
	incarnation string
	open        bool // RoomState came, or the client brought its position
	unavailable bool // RoomUnavailable came, and no RoomState since
	moved       bool // named since the Welcome by a Rewind, Gap or Events
	caughtUp    bool
	events      map[uint64][]byte // by offset, as they came
	texts       []string
	offsets     []uint64
	gaps        []*reprisev1.Gap
	rewinds     []*reprisev1.Rewind
	state       *reprisev1.RoomState
	closed      *reprisev1.RoomClosed
}

// stream is a client's stream that accounts for everything it receives: any
// frame that breaks the order of frames, or an offset left out, repeated or
// out of order, fails the test.
type stream struct {
	t      *testing.T
	client grpc.ClientStream
	hangUp context.CancelFunc
	tail   bool

	welcome *reprisev1.Welcome
	rooms   map[string]*place
	done    bool // CaughtUp of all rooms came
	bytes   int  // of all frames until then
	frames  int
}

func (n *node) begin(user, method string, client bool, first proto.Message) *stream {
	n.t.Helper()
	ctx, hangUp := context.WithCancel(as(n.t, user))
	n.t.Cleanup(hangUp)
	desc := &grpc.StreamDesc{StreamName: method, ServerStreams: true, ClientStreams: client}
	c, err := n.conn.NewStream(ctx, desc, "/"+reprisev1.ChatService_ServiceDesc.ServiceName+"/"+method, grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		n.t.Fatal(err)
	}
	if err := c.SendMsg(first); err != nil {
		n.t.Fatal(err)
	}
	if !client {
		if err := c.CloseSend(); err != nil {
			n.t.Fatal(err)
		}
	}
	return &stream{t: n.t, client: c, hangUp: hangUp, rooms: make(map[string]*place)}
}

func (n *node) open(user string, r *reprisev1.OpenRequest) *stream {
	n.t.Helper()
	return n.begin(user, "Open", false, r)
}

// connect attaches a Connect stream with an open or a resume.
func (n *node) connect(user string, first proto.Message) *stream {
	n.t.Helper()
	f := new(reprisev1.ClientFrame)
	var held []*reprisev1.Position
	switch r := first.(type) {
	case *reprisev1.OpenRequest:
		f.Frame = &reprisev1.ClientFrame_Open{Open: r}
	case *reprisev1.ResumeRequest:
		f.Frame = &reprisev1.ClientFrame_Resume{Resume: r}
		held = r.GetPositions()
	}
	s := n.begin(user, "Connect", true, f)
	s.bring(held)
	return s
}

func (n *node) resume(user string, r *reprisev1.ResumeRequest) *stream {
	n.t.Helper()
	s := n.begin(user, "Resume", false, r)
	s.bring(r.GetPositions())
	return s
}

func (n *node) tail(user string, r *reprisev1.TailRequest) *stream {
	n.t.Helper()
	s := n.begin(user, "Tail", false, r)
	s.tail = true
	s.rooms[r.GetRoom()] = &place{last: r.GetAfter(), incarnation: r.GetIncarnation(), open: true, events: make(map[uint64][]byte)}
	return s
}

// bring has the stream's client hold positions from before.
func (s *stream) bring(ps []*reprisev1.Position) {
	for _, p := range ps {
		s.rooms[p.GetRoom()] = &place{
			last: p.GetOffset(), incarnation: p.GetIncarnation(), open: true, events: make(map[uint64][]byte),
		}
	}
}

// again is the request to resume what this stream was attached to, with all
// positions.
func (s *stream) again() *reprisev1.ResumeRequest {
	return &reprisev1.ResumeRequest{
		SessionId: s.welcome.GetSessionId(), ResumeKey: s.welcome.GetResumeKey(), Positions: s.positions(),
	}
}

// keyOnly is the request to resume from what the server has stored.
func (s *stream) keyOnly() *reprisev1.ResumeRequest {
	r := s.again()
	r.Positions = nil
	return r
}

func (s *stream) via() *reprisev1.Via {
	return &reprisev1.Via{SessionId: s.welcome.GetSessionId(), Attach: s.welcome.GetAttach()}
}

func (s *stream) positions() (ps []*reprisev1.Position) {
	for name, p := range s.rooms {
		if p.open {
			ps = append(ps, &reprisev1.Position{Room: name, Offset: p.last, Incarnation: p.incarnation})
		}
	}
	slices.SortFunc(ps, func(a, b *reprisev1.Position) int { return compareStrings(a.GetRoom(), b.GetRoom()) })
	return ps
}

func compareStrings(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (s *stream) position(room string) *reprisev1.Position {
	p := s.rooms[room]
	return &reprisev1.Position{Room: room, Offset: p.last, Incarnation: p.incarnation}
}

// recv receives a frame and accounts for it.
func (s *stream) recv() (*frame, error) {
	f := new(frame)
	if err := s.client.RecvMsg(f); err != nil {
		return nil, err
	}
	s.frames++
	if err := s.account(f); err != nil {
		s.t.Errorf("frame %d breaks the rules: %v\n%v", s.frames, err, f.ServerFrame)
	}
	if !s.done {
		s.bytes += len(f.raw)
	}
	return f, nil
}

func (s *stream) next() *frame {
	s.t.Helper()
	f, err := s.recv()
	if err != nil {
		s.t.Fatalf("the stream ended: %v", err)
	}
	return f
}

// until reads up to the first frame that is wanted.
func (s *stream) until(what string, wanted func(*frame) bool) *frame {
	s.t.Helper()
	for {
		f, err := s.recv()
		if err != nil {
			s.t.Fatalf("waiting for %s, the stream ended: %v", what, err)
		}
		if wanted(f) {
			return f
		}
	}
}

// greeted reads the Welcome.
func (s *stream) greeted() *stream {
	s.t.Helper()
	for s.welcome == nil {
		s.next()
	}
	return s
}

// caughtUp reads until every room has caught up.
func (s *stream) caughtUp() *stream {
	s.t.Helper()
	for !s.done {
		s.next()
	}
	return s
}

// reach reads until the room's offset is held.
func (s *stream) reach(room string, offset uint64) {
	s.t.Helper()
	for s.rooms[room] == nil || s.rooms[room].last < offset {
		s.next()
	}
}

// end reads to the end of the stream and returns how it ended.
func (s *stream) end() error {
	for {
		if _, err := s.recv(); err != nil {
			return err
		}
	}
}

// quiet checks that nothing comes for a while. It ends the stream.
func (s *stream) quiet(d time.Duration) {
	s.t.Helper()
	timer := time.AfterFunc(d, s.hangUp)
	defer timer.Stop()
	if f, err := s.recv(); err == nil {
		s.t.Fatalf("nothing should come, got %v", f.ServerFrame)
	}
}

func (s *stream) send(f *reprisev1.ClientFrame) {
	s.t.Helper()
	if err := s.client.SendMsg(f); err != nil {
		s.t.Fatalf("send: %v", err)
	}
}

// ack acknowledges positions on a Connect stream.
func (s *stream) ack(ps ...*reprisev1.Position) {
	s.t.Helper()
	s.send(&reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_Ack{Ack: &reprisev1.AckRequest{Positions: ps}}})
}

// checkpoint reads until the first acks acknowledgements are stored.
func (s *stream) checkpoint(acks uint64) string {
	s.t.Helper()
	return s.until("a checkpoint", func(f *frame) bool { return f.GetCheckpoint().GetAcks() >= acks }).GetCheckpoint().GetId()
}

func (s *stream) account(f *frame) error {
	if s.welcome == nil && !s.tail {
		if s.welcome = f.GetWelcome(); s.welcome == nil {
			return fmt.Errorf("the first frame is no Welcome")
		}
		return nil
	}
	switch w := f.GetFrame().(type) {
	case *reprisev1.ServerFrame_Welcome:
		return fmt.Errorf("a second Welcome")
	case *reprisev1.ServerFrame_RoomState:
		return s.state(w.RoomState)
	case *reprisev1.ServerFrame_RoomClosed:
		p := s.rooms[w.RoomClosed.GetRoom()]
		if p == nil {
			p = &place{}
			s.rooms[w.RoomClosed.GetRoom()] = p
		}
		p.open, p.closed = false, w.RoomClosed
	case *reprisev1.ServerFrame_RoomUnavailable:
		return s.unavailable(w.RoomUnavailable)
	case *reprisev1.ServerFrame_Rewind:
		return s.rewind(w.Rewind)
	case *reprisev1.ServerFrame_Gap:
		return s.gap(w.Gap)
	case *reprisev1.ServerFrame_Events:
		return s.take(w.Events, rawEvents(f.raw))
	case *reprisev1.ServerFrame_CaughtUp:
		return s.caught(w.CaughtUp)
	}
	return nil
}

// unavailable notes that nothing of a room comes before its next RoomState.
func (s *stream) unavailable(r *reprisev1.RoomUnavailable) error {
	p := s.rooms[r.GetRoom()]
	switch {
	case r.GetReason() != "ROOM_UNAVAILABLE":
		return fmt.Errorf("%s: unavailable because of %q", r.GetRoom(), r.GetReason())
	case p == nil:
		p = &place{}
		s.rooms[r.GetRoom()] = p
	case p.unavailable:
		return fmt.Errorf("%s: unavailable twice", r.GetRoom())
	}
	p.unavailable, p.state, p.caughtUp = true, nil, false
	return nil
}

func (s *stream) state(r *reprisev1.RoomState) error {
	name, at := r.GetRoom().GetName(), r.GetPosition()
	p := s.rooms[name]
	switch {
	case p == nil || !p.open:
		p = &place{events: make(map[uint64][]byte), last: at.GetOffset(), incarnation: at.GetIncarnation()}
		s.rooms[name] = p
	case p.state != nil:
		return fmt.Errorf("%s: a second RoomState", name)
	case p.last != at.GetOffset():
		return fmt.Errorf("%s: RoomState starts at %d, the client at %d", name, at.GetOffset(), p.last)
	}
	p.open, p.state, p.unavailable = true, r, false
	return nil
}

func (s *stream) opened(room string) (*place, error) {
	p := s.rooms[room]
	if p == nil || !p.open || p.unavailable {
		return nil, fmt.Errorf("%s: it has not been opened", room)
	}
	if s.done && !p.moved && p.state == nil {
		p.caughtUp = true // verified unchanged
	}
	p.moved = true
	return p, nil
}

func (s *stream) rewind(r *reprisev1.Rewind) error {
	p, err := s.opened(r.GetRoom())
	if err != nil {
		return err
	}
	if r.GetTo() > p.last || (r.GetTo() == 0) != (r.GetIncarnation() == "") {
		return fmt.Errorf("%s: Rewind to %d %q from %d", r.GetRoom(), r.GetTo(), r.GetIncarnation(), p.last)
	}
	p.last, p.incarnation = r.GetTo(), r.GetIncarnation()
	p.rewinds = append(p.rewinds, r)
	return nil
}

func (s *stream) gap(g *reprisev1.Gap) error {
	p, err := s.opened(g.GetRoom())
	if err != nil {
		return err
	}
	if g.GetFirst() != p.last+1 || g.GetLast() < g.GetFirst() || g.GetIncarnation() == "" {
		return fmt.Errorf("%s: Gap [%d, %d] %q after %d", g.GetRoom(), g.GetFirst(), g.GetLast(), g.GetIncarnation(), p.last)
	}
	p.last, p.incarnation = g.GetLast(), g.GetIncarnation()
	p.gaps = append(p.gaps, g)
	return nil
}

func (s *stream) take(es *reprisev1.Events, raw [][]byte) error {
	p, err := s.opened(es.GetRoom())
	if err != nil {
		return err
	}
	if es.GetIncarnation() == "" || len(es.GetEvents()) == 0 || len(raw) != len(es.GetEvents()) {
		return fmt.Errorf("%s: %d events, incarnation %q", es.GetRoom(), len(es.GetEvents()), es.GetIncarnation())
	}
	for i, e := range es.GetEvents() {
		if e.GetAfter() != p.last || e.GetOffset() != e.GetAfter()+1 {
			return fmt.Errorf("%s: event %d after %d, the client holds %d", es.GetRoom(), e.GetOffset(), e.GetAfter(), p.last)
		}
		p.last, p.incarnation = e.GetOffset(), es.GetIncarnation()
		p.events[e.GetOffset()] = raw[i]
		p.offsets = append(p.offsets, e.GetOffset())
		p.texts = append(p.texts, e.GetMessage().GetText())
	}
	return nil
}

func (s *stream) caught(c *reprisev1.CaughtUp) error {
	if c.GetRoom() == "" {
		if s.done {
			return fmt.Errorf("a second CaughtUp for all rooms")
		}
		s.done = true
		for name, p := range s.rooms {
			if p.open && p.moved && !p.caughtUp && !p.unavailable && (s.tail || p.state != nil && !p.state.GetGained()) {
				return fmt.Errorf("CaughtUp for all rooms, but %s has not", name)
			}
		}
		return nil
	}
	p := s.rooms[c.GetRoom()]
	if p == nil || !p.open || p.caughtUp || p.unavailable {
		return fmt.Errorf("%s: CaughtUp of a room that is not behind", c.GetRoom())
	}
	p.caughtUp = true
	// Equal, not at least: nothing live comes before it.
	if c.GetOffset() != p.last || c.GetIncarnation() != p.incarnation {
		return fmt.Errorf("%s: CaughtUp at %d %q, the client holds %d %q", c.GetRoom(), c.GetOffset(), c.GetIncarnation(), p.last, p.incarnation)
	}
	return nil
}

// held reports whether the stream accounts for (after, head] of a room, by
// events and gaps.
func (s *stream) held(room string, after, head uint64) {
	s.t.Helper()
	p := s.rooms[room]
	at := after
	var gaps []*reprisev1.Gap
	if p != nil {
		gaps = p.gaps
		for at < head {
			if _, ok := p.events[at+1]; ok {
				at++
			} else if len(gaps) > 0 && gaps[0].GetFirst() == at+1 {
				at, gaps = gaps[0].GetLast(), gaps[1:]
			} else {
				break
			}
		}
	}
	if at != head || len(gaps) > 0 {
		s.t.Fatalf("%s: the account of (%d, %d] breaks off at %d; gaps left %v", room, after, head, at, gaps)
	}
}
