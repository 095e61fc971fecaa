package attach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/session"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// How an attachment ended, for errors.Is; nil after Moved, Bye and the end of
// a Tail.
var (
	// ErrDraining: the server is stopping.
	ErrDraining = errors.New("attach: the server is stopping")
	// ErrEnded: the session was ended.
	ErrEnded = errors.New("attach: the session was ended")
	// ErrBeyondSent: an acknowledgement of what was not sent.
	ErrBeyondSent = errors.New("attach: acknowledgement beyond what was sent")
)

const (
	// maxInFlight bounds the client frames of one stream that have been read
	// and whose answers have not been sent.
	maxInFlight = 512
	// endGrace is how long an attachment that ends may take to send what is
	// due: its receipts and the frame that says why.
	endGrace = 5 * time.Second
)

// Attachment is a live stream that speaks for a session, or a Tail. Make it
// with a Manager. Safe for concurrent use.
type Attachment struct {
	// Static once started.
	m        *Manager
	stream   Stream
	user     string
	instance string
	window   int
	attached *session.Attached // nil: a Tail
	limit    uint64            // events to send in all; 0: no limit (Tail)
	follow   bool              // go on when caught up
	// slots holds a token for each client frame that has no answer yet.
	slots chan struct{}
	done  chan struct{} // closed when the stream is to end

	leaving atomic.Bool // the client has said Bye

	// Guarded by mu.
	mu         sync.Mutex
	started    bool
	scheduled  bool            // wants a turn or is having one
	turning    bool            // having one
	inQueue    [laneCount]bool // in the pool's lanes
	finished   bool            // done is closed
	released   bool            // rooms and timers have been given back
	err        error
	whenDone   func(error)
	places     []*place // by room name
	news       news     // places that may have something to send
	replies    [][]byte // encoded, which is a quarter of what the message takes
	changes    []change
	histories  map[string]uint32 // for rooms that are being joined
	unacked    int               // event bytes sent and not acknowledged
	heartbeat  bool              // one is due
	checkpoint *reprisev1.Checkpoint
	drain      *reprisev1.Drain
	ending     *ending
	probe      chan struct{} // closed at the next sign of life
	timers     []*time.Timer

	// Owned by the turn.
	opening  []*reprisev1.ServerFrame // nil entries are the RoomState of opened
	opened   []*place
	replays  int  // initial places that are not caught up
	caughtUp bool // CaughtUp of all rooms was sent
	sent     uint64

	outage *outage // what cannot be read just now; nil if that never was
}

// change is a durable change of one of the user's memberships.
type change struct {
	room string
	store.MemberChange
}

// ending is how the stream ends once the answers that are due are sent.
type ending struct {
	frame *reprisev1.ServerFrame // may be nil
	err   error
}

// Done is closed when the stream is to end; then Err says how.
func (a *Attachment) Done() <-chan struct{} { return a.done }

// Err returns how the attachment ended; nil: normally.
func (a *Attachment) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// WhenDone has f, unless it is nil, called once when Done is closed, with what
// Err says: at once if it is closed already, and not at all after Close. f may
// block while the client takes nothing.
func (a *Attachment) WhenDone(f func(error)) {
	a.mu.Lock()
	finished, err := a.finished, a.err
	if !finished {
		a.whenDone = f
	}
	a.mu.Unlock()
	if finished && f != nil {
		f(err)
	}
}

// Session returns the session spoken for, and the attach number.
func (a *Attachment) Session() (*session.Session, uint64) {
	return a.attached.Session, a.attached.Attach
}

// Begin is called for each client frame, before it is carried out. It waits
// while too many are unanswered: the client does not read. Each Begin that
// returned nil is followed by one Reply.
func (a *Attachment) Begin() error {
	a.Touch()
	select {
	case a.slots <- struct{}{}:
		return nil
	case <-a.done:
		return context.Canceled
	case <-a.stream.Context().Done():
		return a.stream.Context().Err()
	}
}

// Reply answers a client frame; nil if there is nothing to say.
func (a *Attachment) Reply(f *reprisev1.ServerFrame) {
	var encoded []byte
	if f == nil {
		<-a.slots
	} else if b, err := proto.Marshal(f); err == nil {
		encoded = b
	} else {
		a.finish(fmt.Errorf("attach: an answer cannot be encoded: %w", err)) // it is of our own making
		<-a.slots
	}
	a.mu.Lock()
	if encoded != nil {
		a.replies = append(a.replies, encoded)
	}
	l, push := a.scheduleLocked(urgent)
	a.mu.Unlock()
	a.push(l, push)
}

// Touch notes a sign of life of the client.
func (a *Attachment) Touch() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.probe != nil {
		close(a.probe)
		a.probe = nil
	}
}

// Instance implements session.Holder.
func (a *Attachment) Instance() string { return a.instance }

// Live implements session.Holder.
func (a *Attachment) Live() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.finished && a.stream.Context().Err() == nil
}

// Probe implements session.Holder.
func (a *Attachment) Probe() <-chan struct{} {
	a.mu.Lock()
	if a.probe == nil {
		a.probe = make(chan struct{})
	}
	c := a.probe
	a.heartbeat = true
	l, push := a.scheduleLocked(urgent)
	a.mu.Unlock()
	a.push(l, push)
	return c
}

// Checkpointed implements session.Holder.
func (a *Attachment) Checkpointed(id string, acks uint64) {
	a.mu.Lock()
	a.checkpoint = &reprisev1.Checkpoint{Id: id, Acks: acks}
	l, push := a.scheduleLocked(urgent)
	a.mu.Unlock()
	a.push(l, push)
}

// Supersede implements session.Holder.
func (a *Attachment) Supersede(attach uint64, same bool) {
	if same {
		a.end(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Moved{Moved: &reprisev1.Moved{Attach: attach}}}, nil)
		return
	}
	a.end(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Fenced{Fenced: &reprisev1.Fenced{Attach: attach}}}, session.ErrFenced)
}

// Ended implements session.Holder.
func (a *Attachment) Ended() { a.end(nil, ErrEnded) }

// Bye ends the stream at the client's wish.
func (a *Attachment) Bye() {
	a.leaving.Store(true)
	a.end(nil, nil)
}

// Leaving reports whether the client has said Bye.
func (a *Attachment) Leaving() bool { return a.leaving.Load() }

// end stops the delivery of events; when the answers that are due have been
// sent, and then frame, the stream ends with err. Bounded by endGrace.
func (a *Attachment) end(frame *reprisev1.ServerFrame, err error) {
	a.mu.Lock()
	if a.ending != nil || a.finished {
		a.mu.Unlock()
		return
	}
	a.ending = &ending{frame, err}
	a.timers = append(a.timers, time.AfterFunc(endGrace, func() { a.finish(err) }))
	l, push := a.scheduleLocked(urgent)
	a.mu.Unlock()
	a.push(l, push)
}

// finish has the stream end now.
func (a *Attachment) finish(err error) {
	a.mu.Lock()
	if a.finished {
		a.mu.Unlock()
		return
	}
	a.finished, a.err = true, err
	f := a.whenDone
	a.whenDone = nil
	close(a.done)
	a.mu.Unlock()
	if f != nil {
		f(err)
	}
}

// Close gives everything back; the stream is at its end. A turn that is under
// way, perhaps held up in the stream, does so when it is over.
func (a *Attachment) Close() {
	a.WhenDone(nil)
	a.finish(a.stream.Context().Err())
	if a.attached != nil {
		a.attached.Detach(a)
		if log := a.debug(); log != nil {
			log.Debug("detached", "error", a.Err())
		}
	}
	a.m.unregister(a)
	a.mu.Lock()
	later := a.scheduled
	a.mu.Unlock()
	if !later {
		a.release()
	}
}

// debug returns the log for those who look for a client that does not get
// through, with what tells the attachment from others; nil if nobody looks.
func (a *Attachment) debug() *slog.Logger {
	if log := a.m.opts.Logger; log.Enabled(a.stream.Context(), slog.LevelDebug) {
		return log.With("user", a.user, "session", a.attached.Session.ID(), "attach", a.attached.Attach)
	}
	return nil
}

// abandon gives back an attachment that has not begun.
func (a *Attachment) abandon(err error) {
	a.finish(err)
	a.m.unregister(a)
	a.release()
}

// release gives rooms and timers back, once. Nobody has a turn.
func (a *Attachment) release() {
	a.mu.Lock()
	places := a.places
	if a.released {
		places = nil
	}
	a.released = true
	a.places, a.news = nil, news{}
	for _, t := range a.timers {
		t.Stop()
	}
	if a.outage != nil && a.outage.timer != nil {
		a.outage.timer.Stop()
	}
	a.mu.Unlock()
	for _, p := range places {
		p.cursor.Close()
		p.cursor.Room().Release()
	}
}

// enqueue puts a place whose queued flag was just set on the list of news, and
// the attachment in a lane.
func (a *Attachment) enqueue(p *place, l lane) {
	a.mu.Lock()
	a.news.push(p)
	l, push := a.scheduleLocked(l)
	a.mu.Unlock()
	a.push(l, push)
}

// scheduleLocked has the attachment get a turn and returns the lane in which
// the caller must push it after unlocking. What is urgent does not wait until
// the readers of a crowded room have their turn: it overtakes the attachment's
// own place among them.
func (a *Attachment) scheduleLocked(l lane) (lane, bool) {
	if !a.started || a.released || a.turning || a.scheduled && slices.Contains(a.inQueue[l:], true) {
		return 0, false
	}
	a.scheduled = true
	return l, a.enterLocked(l)
}

// enterLocked reports whether the attachment has to be pushed into a lane: it
// is in each at most once.
func (a *Attachment) enterLocked(l lane) bool {
	was := a.inQueue[l]
	a.inQueue[l] = true
	return !was
}

func (a *Attachment) push(l lane, yes bool) {
	if yes {
		a.m.pool.push(a, l)
	}
}

// beat makes a heartbeat due every so often, until the stream ends.
func (a *Attachment) beat(every time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.released {
		return
	}
	var t *time.Timer
	t = time.AfterFunc(every, func() {
		a.mu.Lock()
		a.heartbeat = true
		l, push := a.scheduleLocked(urgent)
		if !a.finished && !a.released {
			t.Reset(every)
		}
		a.mu.Unlock()
		a.push(l, push)
	})
	a.timers = append(a.timers, t)
}

// drainNotice tells the client that the server is about to stop.
func (a *Attachment) drainNotice(moveAfter, closesIn time.Duration) {
	a.mu.Lock()
	a.drain = &reprisev1.Drain{MoveAfter: durationpb.New(moveAfter), ClosesIn: durationpb.New(closesIn)}
	l, push := a.scheduleLocked(urgent)
	a.mu.Unlock()
	a.push(l, push)
}

// memberChanged is told of each change of the user's memberships.
func (a *Attachment) memberChanged(room string, c store.MemberChange) {
	a.mu.Lock()
	a.changes = addChange(a.changes, change{room, c})
	l, push := a.scheduleLocked(urgent)
	a.mu.Unlock()
	a.push(l, push)
}

// WantHistory has the user's coming join of a room deliver that many events
// before the join event to this attachment, once. Call forget if it comes to
// no join after all.
func (a *Attachment) WantHistory(room string, events uint32) (forget func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.histories == nil {
		a.histories = make(map[string]uint32)
	}
	a.histories[room] = events
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.histories, room)
	}
}

func (a *Attachment) placeLocked(room string) *place {
	i, ok := slices.BinarySearchFunc(a.places, room, func(p *place, name string) int {
		return strings.Compare(p.name(), name)
	})
	if !ok {
		return nil
	}
	return a.places[i]
}
