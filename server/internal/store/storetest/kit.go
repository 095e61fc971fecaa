package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// epoch is the time of the first event of a room; each later one is a second
// younger, by its offset.
var epoch = time.Unix(1_700_000_000, 0).UTC()

// message returns the event of an offset, encoded.
func message(tb testing.TB, offset uint64, sender, clientID, text string) []byte {
	tb.Helper()
	b, err := event.Encode(&reprisev1.Event{
		Time:     timestamppb.New(epoch.Add(time.Duration(offset) * time.Second)),
		Sender:   sender,
		ClientId: clientID,
		Body:     &reprisev1.Event_Message{Message: &reprisev1.Message{Text: text}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	event.Place(b, offset, offset-1)
	return b
}

// room is a room as a test uses it.
type room struct {
	tb   testing.TB
	name string
	log  store.Log
	// events are the encoded events that were committed, by offset - 1.
	events [][]byte
}

// openRoom opens the log of a room that may exist.
func openRoom(tb testing.TB, s store.Store, name string) *room {
	tb.Helper()
	l, err := s.OpenLog(tb.Context(), name)
	if err != nil {
		tb.Fatalf("OpenLog(%q): %v", name, err)
	}
	return &room{tb: tb, name: name, log: l}
}

// newRoom creates a room with its first event, by which creator joins.
func newRoom(tb testing.TB, s store.Store, name string) *room {
	tb.Helper()
	r := openRoom(tb, s, name)
	r.must(r.creation(""))
	return r
}

// reopen opens the log of the same room in a store that was opened anew.
func (r *room) reopen(s store.Store) {
	r.tb.Helper()
	r.log = openRoom(r.tb, s, r.name).log
}

func (r *room) head() uint64 { return uint64(len(r.events)) }

// event returns the next event.
func (r *room) event(sender, clientID, text string) store.Event {
	r.tb.Helper()
	return r.eventAt(r.head()+1, sender, clientID, text)
}

func (r *room) eventAt(offset uint64, sender, clientID, text string) store.Event {
	r.tb.Helper()
	return store.Event{Encoded: message(r.tb, offset, sender, clientID, text), Sender: sender, ClientID: clientID}
}

// creation is the first append of a room. The creator becomes a member.
func (r *room) creation(creator string) *store.Append {
	r.tb.Helper()
	a := &store.Append{
		Create: &store.Meta{Name: r.name, Creator: creator, Created: epoch},
		Events: []store.Event{r.eventAt(1, creator, "", "created")},
	}
	if creator != "" {
		a.Members = []store.MemberChange{{User: creator, Joined: true, Offset: 1, By: creator}}
	}
	return a
}

// append appends and waits.
func (r *room) append(a *store.Append) error {
	done := make(chan error, 2)
	a.Done = func(err error) { done <- err }
	err := r.log.Append(a)
	if err == nil {
		err = <-done
	}
	if err == nil {
		for _, e := range a.Events {
			r.events = append(r.events, bytes.Clone(e.Encoded))
		}
	}
	return err
}

func (r *room) must(a *store.Append) {
	r.tb.Helper()
	if err := r.append(a); err != nil {
		r.tb.Fatalf("Append to %q at %d: %v", r.name, a.Expect, err)
	}
}

// post appends n messages, one append each.
func (r *room) post(n int) {
	r.tb.Helper()
	for range n {
		r.publish("alice", "", fmt.Sprintf("message %d", r.head()+1))
	}
}

// publish appends one message and returns its offset.
func (r *room) publish(sender, clientID, text string) uint64 {
	r.tb.Helper()
	r.must(&store.Append{Expect: r.head(), Events: []store.Event{r.event(sender, clientID, text)}})
	return r.head()
}

// change appends the beginning or end of a membership.
func (r *room) change(user string, joined bool, by string) {
	r.tb.Helper()
	r.must(&store.Append{
		Expect:  r.head(),
		Events:  []store.Event{r.event("alice", "", fmt.Sprintf("joined: %t", joined))},
		Members: []store.MemberChange{{User: user, Joined: joined, Offset: r.head() + 1, By: by}},
	})
}

// check compares everything that can be read with what was committed.
func (r *room) check(oldest uint64) {
	r.tb.Helper()
	st := r.log.State()
	if st.Head != r.head() || st.Oldest != oldest {
		r.tb.Fatalf("room %q: state has oldest %d, head %d; want %d, %d", r.name, st.Oldest, st.Head, oldest, r.head())
	}
	want := bytes.Join(r.events[oldest-1:], nil)
	p, err := r.log.Read(r.tb.Context(), 0, r.head()+10, len(want)+1, nil)
	if err != nil {
		r.tb.Fatalf("room %q: Read: %v", r.name, err)
	}
	if !bytes.Equal(p.Data, want) {
		r.tb.Fatalf("room %q: Read returned [%d, %d], %d bytes; want [%d, %d], %d bytes",
			r.name, p.First, p.Last, len(p.Data), oldest, r.head(), len(want))
	}
	if len(want) > 0 && (p.First != oldest || p.Last != r.head()) || len(want) == 0 && p.Last != 0 {
		r.tb.Fatalf("room %q: Read returned [%d, %d]; want [%d, %d]", r.name, p.First, p.Last, oldest, r.head())
	}
}

func (r *room) trim(b store.Bounds) store.State {
	r.tb.Helper()
	st, err := r.log.Trim(r.tb.Context(), b)
	if err != nil {
		r.tb.Fatalf("room %q: Trim(%+v): %v", r.name, b, err)
	}
	return st
}

func (r *room) lookup(sender, clientID string, want uint64) {
	r.tb.Helper()
	got, err := r.log.Lookup(r.tb.Context(), sender, clientID)
	if err != nil || got != want {
		r.tb.Fatalf("room %q: Lookup(%q, %q) = %d, %v; want %d", r.name, sender, clientID, got, err, want)
	}
}

func wantIs(tb testing.TB, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Fatalf("error is %v; want %v", err, want)
	}
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
