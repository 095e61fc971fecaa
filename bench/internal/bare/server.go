package bare

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that rawCodec wraps
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// Server is a broadcast server without storage, or with a Committer.
type Server struct {
	pool      *pool
	committer *Committer // nil: nothing is stored
	entered   atomic.Uint64

	mu    sync.Mutex
	rooms map[string]*room
}

// NewServer returns a server; with a committer, events are durable before they
// are shown and acknowledged.
func NewServer(c *Committer) *Server {
	return &Server{pool: newPool(), committer: c, rooms: make(map[string]*room)}
}

// Serve serves until the listener fails.
func (s *Server) Serve(l net.Listener) error {
	g := grpc.NewServer(
		grpc.ForceServerCodecV2(rawCodec{encoding.GetCodecV2("proto")}),
		grpc.MaxConcurrentStreams(100),
		grpc.StaticStreamWindowSize(64<<10), grpc.StaticConnWindowSize(256<<10),
	)
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "reprise.v1.ChatService",
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			{StreamName: "Connect", Handler: s.connect, ServerStreams: true, ClientStreams: true},
			{StreamName: "Open", Handler: s.open, ServerStreams: true},
			{StreamName: "Resume", Handler: s.resume, ServerStreams: true},
		},
	}, s)
	return g.Serve(l)
}

// Metrics serves how many objects were allocated, in the format of Prometheus.
func Metrics(w http.ResponseWriter, _ *http.Request) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Fprintf(w, "go_memstats_mallocs_total %d\n", m.Mallocs)
}

// out is one stream. Several readers and the handler may send on it.
type out struct {
	mu     sync.Mutex
	stream grpc.ServerStream
}

func (o *out) send(m any) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stream.SendMsg(m)
}

// connect reads a client's frames: the first names the rooms it wants in
// focus, the others are messages.
func (s *Server) connect(_ any, stream grpc.ServerStream) error {
	o := &out{stream: stream}
	var first reprisev1.ClientFrame
	if err := stream.RecvMsg(&first); err != nil {
		return err
	}
	if r := first.GetResume(); r != nil {
		defer s.again(o, r)()
	} else {
		defer s.begin(o, first.GetOpen())()
	}
	for {
		var b []byte
		if err := stream.RecvMsg(&b); err != nil {
			return nil //nolint:nilerr // the client has gone
		}
		if err := s.publish(o, b); err != nil {
			return err
		}
	}
}

func (s *Server) open(_ any, stream grpc.ServerStream) error {
	var r reprisev1.OpenRequest
	if err := stream.RecvMsg(&r); err != nil {
		return err
	}
	defer s.begin(&out{stream: stream}, &r)()
	<-stream.Context().Done()
	return nil
}

func (s *Server) resume(_ any, stream grpc.ServerStream) error {
	var r reprisev1.ResumeRequest
	if err := stream.RecvMsg(&r); err != nil {
		return err
	}
	defer s.again(&out{stream: stream}, &r)()
	<-stream.Context().Done()
	return nil
}

// begin has the rooms that a client names delivered from now on.
func (s *Server) begin(o *out, r *reprisev1.OpenRequest) (leave func()) {
	var from []*reprisev1.Position
	for _, name := range r.GetFocus() {
		from = append(from, &reprisev1.Position{Room: name, Offset: s.room(name).head(), Incarnation: incarnation})
	}
	return s.subscribe(o, reprisev1.Outcome_OUTCOME_NEW, from)
}

// again has the rooms that a client names delivered from where it was.
func (s *Server) again(o *out, r *reprisev1.ResumeRequest) (leave func()) {
	return s.subscribe(o, reprisev1.Outcome_OUTCOME_EXACT, r.GetPositions())
}

func (s *Server) subscribe(o *out, outcome reprisev1.Outcome, from []*reprisev1.Position) (leave func()) {
	// Sends to a client that has gone fail, and the handler ends anyway.
	_ = o.send(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Welcome{
		Welcome: &reprisev1.Welcome{SessionId: "s_bare", Outcome: outcome},
	}})
	var left []func()
	for _, p := range from {
		_ = o.send(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_RoomState{RoomState: &reprisev1.RoomState{Position: p}}})
		left = append(left, s.enter(o, s.room(p.GetRoom()), p.GetOffset()))
	}
	_ = o.send(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_CaughtUp{CaughtUp: &reprisev1.CaughtUp{}}})
	return func() {
		for _, f := range left {
			f()
		}
	}
}

// enter adds a reader, after having sent it what it lacks.
func (s *Server) enter(o *out, room *room, pos uint64) (leave func()) {
	r := &reader{out: o, room: room}
	r.pos.Store(pos)
	sh := &room.shards[s.entered.Add(1)%uint64(len(room.shards))]
	sh.add(r)
	r.drain()
	return func() { r.dead.Store(true); sh.remove(r) }
}

func (s *Server) room(name string) *room {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rooms[name]
	if r == nil {
		r = newRoom(name, uint64(len(s.rooms)+1))
		s.rooms[name] = r
	}
	return r
}

var errFrame = errors.New("bare: not a frame of the load client")

// publish takes a frame that says send_message.
func (s *Server) publish(o *out, b []byte) error {
	var f sendFrame
	if err := f.parse(b); err != nil {
		return err
	}
	now := time.Now()
	room := s.room(f.room)
	element := encode("u", f.clientID, f.text, now)
	shown := func(offset uint64) {
		room.wake(s.pool)
		_ = o.send(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Receipt{Receipt: &reprisev1.Receipt{
			RequestId: f.requestID,
			Result: &reprisev1.Receipt_SendMessage{SendMessage: &reprisev1.SendMessageResponse{
				Room: f.room, Incarnation: incarnation, Offset: offset, Time: timestamppb.New(now),
			}},
		}}}) // the client may have gone
	}
	room.mu.Lock()
	offset := room.reserve(element)
	if s.committer == nil {
		room.addLocked(element)
		room.mu.Unlock()
		shown(offset)
		return nil
	}
	// Under the lock, so that the committer's order is that of the offsets.
	s.committer.Put(Record{
		Room: room.number, Offset: offset, Sender: "u", ClientID: f.clientID, Element: element,
		Done: func() {
			room.mu.Lock()
			room.addLocked(element)
			room.mu.Unlock()
			shown(offset)
		},
	})
	room.mu.Unlock()
	return nil
}

// sendFrame is a ClientFrame with send_message, taken apart by hand.
type sendFrame struct {
	requestID, room, clientID string
	text                      []byte
}

func (f *sendFrame) parse(b []byte) error {
	var inner []byte
	err := fields(b, func(num protowire.Number, v []byte) {
		switch num {
		case 1:
			f.requestID = string(v)
		case 4:
			inner = v
		}
	})
	if err != nil || inner == nil {
		return errFrame
	}
	return fields(inner, func(num protowire.Number, v []byte) {
		switch num {
		case 2:
			f.room = string(v)
		case 3:
			f.clientID = string(v)
		case 4:
			f.text = v
		}
	})
}

// fields calls f for each field, all of which must be length-delimited.
func fields(b []byte, f func(protowire.Number, []byte)) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || typ != protowire.BytesType {
			return errFrame
		}
		v, m := protowire.ConsumeBytes(b[n:])
		if m < 0 {
			return errFrame
		}
		f(num, v)
		b = b[n+m:]
	}
	return nil
}

// frame is an encoded ServerFrame in two pieces.
type frame struct{ header, elements []byte }

// rawCodec passes encoded frames through, and gives bytes to who wants bytes.
type rawCodec struct{ encoding.CodecV2 }

// Marshal implements encoding.CodecV2.
func (c rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*frame); ok {
		return mem.BufferSlice{mem.SliceBuffer(f.header), mem.SliceBuffer(f.elements)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (c rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if b, ok := v.(*[]byte); ok {
		*b = data.Materialize()
		return nil
	}
	m, ok := v.(proto.Message)
	if !ok {
		return errFrame
	}
	return c.CodecV2.Unmarshal(data, m)
}
