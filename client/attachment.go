package reprise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

const (
	defaultHeartbeat = 20 * time.Second
	heartbeatGrace   = 10 * time.Second
	// handoverTimeout is how long a new stream waits for the last frames of
	// the one it replaces.
	handoverTimeout = 10 * time.Second
	// maxAcksInFlight bounds acknowledgements without a receipt; further ones
	// merge until one comes.
	maxAcksInFlight = 8
)

// errLost is the answer to a frame whose stream ended before it was answered.
var errLost = errors.New("reprise: the stream was lost")

// attachment is one live stream that speaks for the session.
type attachment struct {
	// Static.
	number  uint64 // of those of this client, rising
	conn    *conn
	rpc     grpc.BidiStreamingClient[reprisev1.ClientFrame, reprisev1.ServerFrame]
	ctx     context.Context // the stream's; its cause is why the client ended it
	cancel  context.CancelCauseFunc
	via     *reprisev1.Via
	welcome *reprisev1.Welcome
	started time.Time
	log     *slog.Logger

	// Read side: the goroutine of read.
	prev  *attachment // whose last frames come first; nil if there is none
	inbox *inbox
	book  *ledger

	// Delivery: the goroutine that runs the handler.
	caughtUp     bool
	roomCaughtUp map[string]bool
	// unavailable are the rooms that the server could not read and has not sent
	// since, as far as they count among the user's rooms.
	unavailable map[string]bool
	closed      map[string]bool // rooms that it said are lost
	broken      bool

	// Send side: what the goroutine of write takes.
	out   chan *reprisev1.ClientFrame
	beat  chan struct{} // capacity 1: a heartbeat wants an answer
	acked chan struct{} // capacity 1: acks changed
	bye   chan *reprisev1.Bye

	// For the supervisor.
	progress atomic.Bool           // something came after the Welcome
	drain    chan *reprisev1.Drain // capacity 1
	done     chan struct{}         // closed when nothing more is read; err is set before
	err      error

	mu       sync.Mutex
	waiters  map[string]chan<- answer
	lastID   uint64
	acks     map[string]Position   // to be acknowledged
	alone    []Position            // to be acknowledged each by itself
	ackIDs   map[string][]Position // acknowledged, not answered yet
	lastSeen time.Time
	stalled  chan struct{} // closed while the reader waits for the handler
	isFull   bool
	ended    bool
}

// answer is what a client frame came to.
type answer struct {
	receipt *reprisev1.Receipt
	err     error
}

// read takes frames off the stream until it ends. Only it closes done.
func (a *attachment) read() {
	a.awaitPrevious()
	err := a.readFrames()
	if cause := context.Cause(a.ctx); cause != nil {
		err = cause
	}
	a.cancel(err)
	a.finish(err)
	a.conn.release()
}

// awaitPrevious keeps the frames of two streams in order: those of the older
// one are handed over first.
func (a *attachment) awaitPrevious() {
	if a.prev == nil {
		return
	}
	prev := a.prev
	a.prev = nil // or every attachment would be kept for ever
	timer := time.NewTimer(handoverTimeout)
	defer timer.Stop()
	select {
	case <-prev.done:
		return
	case <-timer.C:
		prev.cancel(errLost)
	case <-a.ctx.Done():
		prev.cancel(errLost)
	}
	<-prev.done
}

func (a *attachment) readFrames() error {
	a.seen()
	for {
		f, err := a.rpc.Recv()
		if errors.Is(err, io.EOF) {
			return errLost
		}
		if err != nil {
			return errorOf(err)
		}
		a.seen()
		a.progress.Store(true)
		if err := a.take(f); err != nil {
			return err
		}
	}
}

// take routes a frame: what concerns the handler waits for it, what concerns
// the stream is done at once.
func (a *attachment) take(frame *reprisev1.ServerFrame) error {
	switch f := frame.GetFrame().(type) {
	case *reprisev1.ServerFrame_Receipt:
		a.answer(f.Receipt.GetRequestId(), answer{receipt: f.Receipt})
	case *reprisev1.ServerFrame_Fault:
		a.fault(f.Fault)
	case *reprisev1.ServerFrame_Checkpoint:
		a.book.checkpoint(a, f.Checkpoint.GetId(), f.Checkpoint.GetAcks())
	case *reprisev1.ServerFrame_Heartbeat:
		signal(a.beat)
	case *reprisev1.ServerFrame_Drain:
		select {
		case a.drain <- f.Drain:
		default: // one was enough
		}
	case *reprisev1.ServerFrame_Moved:
		a.log.Debug("stream has moved", "to", f.Moved.GetAttach())
	case *reprisev1.ServerFrame_Fenced:
		return fmt.Errorf("%w (attach number %d)", ErrFenced, f.Fenced.GetAttach())
	case *reprisev1.ServerFrame_Welcome:
		return fmt.Errorf("%w: a second Welcome", ErrProtocol)
	case nil: // a frame of a later release
	default:
		return a.push(item{from: a, frame: frame, size: proto.Size(frame)})
	}
	return nil
}

// push hands a frame over. While the hand-over is full nothing is read: then
// flow control holds the server, and whoever waits for a receipt on this
// stream is told to ask another way.
func (a *attachment) push(it item) error {
	for !a.inbox.tryPush(it) {
		a.setStalled(true)
		select {
		case <-a.inbox.freed:
		case <-a.ctx.Done():
			return context.Cause(a.ctx)
		}
	}
	a.setStalled(false)
	return nil
}

func (a *attachment) setStalled(full bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case full && !a.isFull:
		close(a.stalled)
	case !full && a.isFull:
		a.stalled = make(chan struct{})
		a.lastSeen = time.Now()
	}
	a.isFull = full
}

// answer gives a frame's answer to whoever waits for it.
func (a *attachment) answer(id string, ans answer) bool {
	a.mu.Lock()
	positions, isAck := a.ackIDs[id]
	delete(a.ackIDs, id)
	waiter, waits := a.waiters[id]
	delete(a.waiters, id)
	a.mu.Unlock()
	if waits {
		waiter <- ans // has room for the one answer
	}
	if isAck {
		a.ackAnswered(positions, ans.err)
	}
	return waits || isAck
}

// ackAnswered takes the answer to an acknowledgement. It is refused as a whole
// when one room in it was left meanwhile: then each position goes by itself.
func (a *attachment) ackAnswered(positions []Position, err error) {
	switch {
	case err == nil:
		a.book.acceptAck(a, positions)
	case len(positions) > 1:
		a.mu.Lock()
		a.alone = append(a.alone, positions...)
		a.mu.Unlock()
	default:
		a.log.Warn("an acknowledgement was refused", "room", positions[0].Room, "offset", positions[0].Offset, "error", err)
	}
	signal(a.acked)
}

func (a *attachment) fault(f *reprisev1.Fault) {
	err := errorOfFault(f)
	if !a.answer(f.GetRequestId(), answer{err: err}) {
		a.log.Warn("the server reports a fault", "code", err.Code, "reason", err.Reason, "message", err.Message)
	}
}

// seen notes that the server is alive.
func (a *attachment) seen() {
	a.mu.Lock()
	a.lastSeen = time.Now()
	a.mu.Unlock()
}

// silent reports whether the server has said nothing for too long. It goes by
// the monotonic clock and by the wall clock, which alone goes on while a
// machine sleeps.
func (a *attachment) silent(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.isFull {
		return false // it is the client that does not read
	}
	limit := a.heartbeat() + heartbeatGrace
	return now.Sub(a.lastSeen) > limit || now.Round(0).Sub(a.lastSeen.Round(0)) > limit
}

func (a *attachment) heartbeat() time.Duration {
	if d := a.welcome.GetHeartbeat().AsDuration(); d > 0 {
		return d
	}
	return defaultHeartbeat
}

// finish ends the attachment for everybody who waits for it.
func (a *attachment) finish(err error) {
	a.mu.Lock()
	waiters := a.waiters
	a.waiters, a.ended, a.err = nil, true, err
	a.mu.Unlock()
	for _, w := range waiters {
		w <- answer{err: errLost}
	}
	close(a.done)
}

// request registers somebody who waits for the answer to a frame. The channel
// gets exactly one answer unless unregister is called first.
func (a *attachment) request() (id string, answers chan answer, stalled <-chan struct{}, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return "", nil, nil, errLost
	}
	a.lastID++
	id = strconv.FormatUint(a.lastID, 10)
	answers = make(chan answer, 1)
	a.waiters[id] = answers
	return id, answers, a.stalled, nil
}

func (a *attachment) unregister(id string) {
	a.mu.Lock()
	delete(a.waiters, id)
	a.mu.Unlock()
}

// acknowledge queues positions to be acknowledged, newer over older.
func (a *attachment) acknowledge(positions map[string]Position) {
	a.mu.Lock()
	for room, p := range positions {
		a.acks[room] = p
	}
	a.mu.Unlock()
	signal(a.acked)
}

// nextAck returns the next acknowledgement to write, nil if there is none now.
func (a *attachment) nextAck() *reprisev1.ClientFrame {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.ackIDs) >= maxAcksInFlight {
		return nil
	}
	var positions []Position
	if len(a.alone) > 0 {
		positions, a.alone = a.alone[:1:1], a.alone[1:]
	} else {
		positions = a.takeAcksLocked()
	}
	if len(positions) == 0 {
		return nil
	}
	a.lastID++
	id := strconv.FormatUint(a.lastID, 10)
	a.ackIDs[id] = positions
	return ackFrame(id, protoPositions(positions))
}

func (a *attachment) takeAcksLocked() []Position {
	var positions []Position
	for room, p := range a.acks {
		if len(positions) == maxAckPositions {
			break
		}
		positions = append(positions, p)
		delete(a.acks, room)
	}
	return positions
}

func ackFrame(id string, positions []*reprisev1.Position) *reprisev1.ClientFrame {
	return &reprisev1.ClientFrame{
		RequestId: id,
		Frame:     &reprisev1.ClientFrame_Ack{Ack: &reprisev1.AckRequest{Positions: positions}},
	}
}

// write puts frames on the stream until it ends or goodbye was said. An error
// is not reported: the reader gets the one that matters.
func (a *attachment) write() {
	for {
		var err error
		select {
		case f := <-a.out:
			err = a.rpc.Send(f)
		case <-a.beat:
			err = a.rpc.Send(ackFrame("", nil))
		case <-a.acked:
			err = a.writeAcks()
		case bye := <-a.bye:
			// Whether it gets through or not, this is the end.
			if err = a.writeAcks(); err == nil {
				_ = a.rpc.Send(&reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_Bye{Bye: bye}})
			}
			_ = a.rpc.CloseSend()
			return
		case <-a.ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

func (a *attachment) writeAcks() error {
	for f := a.nextAck(); f != nil; f = a.nextAck() {
		if err := a.rpc.Send(f); err != nil {
			return err
		}
	}
	return nil
}

// welcomed makes the stream an attachment.
func (a *attachment) welcomed(w *reprisev1.Welcome, log *slog.Logger) {
	a.welcome = w
	a.via = &reprisev1.Via{SessionId: w.GetSessionId(), Attach: w.GetAttach()}
	a.started = time.Now()
	a.lastSeen = a.started
	a.log = log.With("session", w.GetSessionId(), "attach", w.GetAttach())
	a.roomCaughtUp, a.closed = make(map[string]bool), make(map[string]bool)
	a.unavailable = make(map[string]bool)
	a.out = make(chan *reprisev1.ClientFrame)
	a.beat = make(chan struct{}, 1)
	a.acked = make(chan struct{}, 1)
	a.bye = make(chan *reprisev1.Bye)
	a.drain = make(chan *reprisev1.Drain, 1)
	a.done = make(chan struct{})
	a.waiters = make(map[string]chan<- answer)
	a.acks = make(map[string]Position)
	a.ackIDs = make(map[string][]Position)
	a.stalled = make(chan struct{})
}
