package history

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// Kind is what a record is about.
type Kind string

// The kinds of records.
const (
	// Publish is a publish: its call, then one end for each call.
	Publish Kind = "pub"
	// Attach is an attach: the call, then OK with the Welcome, or another end.
	Attach Kind = "att"
	// Place is where delivery of a room starts (RoomState.position), or, in a
	// call, the position that the client itself asks to start at.
	Place Kind = "place"
	// Deliver is an event that was handed to the client's user.
	Deliver Kind = "del"
	// Gap and Rewind are what else was.
	Gap    Kind = "gap"
	Rewind Kind = "rew"
	// CaughtUp is the end of the replay of a room, or, without one, of all.
	CaughtUp Kind = "up"
	// Confirmed is a position that a Checkpoint says is stored.
	Confirmed Kind = "ckp"
	// Closed is a RoomClosed.
	Closed Kind = "closed"
	// Unavailable is a RoomUnavailable: CaughtUp of all says nothing of the room
	// until its next Place.
	Unavailable Kind = "away"
	// Final is an event of a room's whole log, read at the end.
	Final Kind = "fin"
)

// Phase is how far a Publish or an Attach is.
type Phase string

// The phases. A step ends with Fail only when the server said that it did
// nothing; a timeout or a lost connection is Unknown.
const (
	Call    Phase = "call"
	OK      Phase = "ok"
	Fail    Phase = "fail"
	Unknown Phase = "unknown"
)

// Record is one step of one client. Fields that a kind does not need are
// empty.
type Record struct {
	// T is nanoseconds on one monotonic clock for all clients.
	T int64 `json:"t"`
	// P names the client.
	P  string `json:"p"`
	K  Kind   `json:"k"`
	Ph Phase  `json:"ph,omitempty"`

	Room    string `json:"room,omitempty"`
	Session string `json:"sess,omitempty"`
	Attach  uint64 `json:"att,omitempty"`
	Inc     string `json:"inc,omitempty"`
	Off     uint64 `json:"off,omitempty"`
	After   uint64 `json:"after,omitempty"`
	// First and Off are the range of a Gap; Off is where a Rewind goes.
	First uint64 `json:"first,omitempty"`
	// ID is a client id, with the sender's name before it; Hash is of the
	// encoded event.
	ID   string `json:"id,omitempty"`
	Hash string `json:"h,omitempty"`
	// Replayed: delivered before the room's CaughtUp.
	Replayed bool `json:"replayed,omitempty"`
}

func (r Record) String() string {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Sprintf("%#v", r) // cannot happen: strings and numbers
	}
	return string(b)
}

// Trace gathers records of many clients. Safe for concurrent use.
type Trace struct {
	start time.Time

	mu      sync.Mutex
	records []Record
	sink    *json.Encoder
}

// NewTrace returns an empty trace; each record is also written to sink as a
// line of JSON, if that is not nil.
func NewTrace(sink io.Writer) *Trace {
	t := &Trace{start: time.Now()}
	if sink != nil {
		t.sink = json.NewEncoder(sink)
	}
	return t
}

// Add stamps r with the time and appends it.
func (t *Trace) Add(r Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.T = t.Now()
	t.records = append(t.records, r)
	if t.sink != nil {
		_ = t.sink.Encode(r) //nolint:errchkjson // the trace in memory is the one that is checked
	}
}

// Now returns the time on the trace's clock, in nanoseconds.
func (t *Trace) Now() int64 { return int64(time.Since(t.start)) }

// Merge adds records that another process made, with the times they have,
// which must be on the trace's clock.
func (t *Trace) Merge(records []Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.records = append(t.records, records...)
	for _, r := range records {
		if t.sink != nil {
			_ = t.sink.Encode(r) //nolint:errchkjson // as in Add
		}
	}
}

// Take returns what there is and starts an empty trace on the same clock, so
// that a long run can be checked a window at a time: see the package comment.
func (t *Trace) Take() []Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := t.records
	t.records = nil
	return taken
}

// Records returns a copy of what there is.
func (t *Trace) Records() []Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Record(nil), t.records...)
}

// Read reads what a Trace wrote.
func Read(r io.Reader) ([]Record, error) {
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	var out []Record
	for in.Scan() {
		var rec Record
		if err := json.Unmarshal(in.Bytes(), &rec); err != nil {
			return nil, fmt.Errorf("history: line %d: %w", len(out)+1, err)
		}
		out = append(out, rec)
	}
	return out, in.Err()
}
