package storetest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// Model does random things, one after another, to the store and to a model of
// it in memory, and compares what can be read. It belongs to the suite, apart
// from Run because it makes thousands of writes and hundreds of restarts: an
// engine runs it on its quickest medium.
func Model(t *testing.T, h Harness) {
	run := 0
	s := h.Store
	rapid.Check(t, func(rt *rapid.T) {
		// Each run has names of its own in the one store.
		run++
		m := &model{
			t: t, h: h, s: s, prefix: fmt.Sprintf("%d/", run),
			rooms: make(map[string]*modelRoom), logs: make(map[string]store.Log),
			users:    make(map[string]map[string]store.UserRoom),
			sessions: make(map[string]*modelSession),
		}
		defer func() { s = m.s }()
		rt.Repeat(rapid.StateMachineActions(m))
		m.compare(rt)
	})
}

// model says what the store should hold. Its exported methods are what rapid
// does to both.
type model struct {
	t      *testing.T
	h      Harness
	s      store.Store
	prefix string
	logs   map[string]store.Log
	steps  int

	rooms    map[string]*modelRoom
	users    map[string]map[string]store.UserRoom // by user and room; without versions
	version  uint64                               // the last one seen
	sessions map[string]*modelSession
}

type modelRoom struct {
	events    []store.Event
	oldest    uint64
	members   map[string]uint64
	stretches []store.Stretch
}

type modelSession struct {
	session   store.Session
	positions map[string]store.Position
}

// modelNames are the names of everything, after the prefix.
var modelNames = []string{"a", "b", "a\x00"}

func (m *model) name(rt *rapid.T, label string) string {
	return m.prefix + rapid.SampledFrom(modelNames).Draw(rt, label)
}

func (m *model) log(name string) store.Log {
	if l := m.logs[name]; l != nil {
		return l
	}
	l, err := m.s.OpenLog(m.t.Context(), name)
	if err != nil {
		m.t.Fatal(err)
	}
	m.logs[name] = l
	return l
}

// Append appends one to three events, sometimes to the wrong head.
func (m *model) Append(rt *rapid.T) {
	name := m.name(rt, "room")
	r := m.rooms[name]
	head := uint64(0)
	if r != nil {
		head = uint64(len(r.events))
	}
	wrong := rapid.SampledFrom([]uint64{0, 0, 0, 0, 1, 2}).Draw(rt, "wrong")
	a := &store.Append{Expect: head + wrong}
	if r == nil {
		a.Create = &store.Meta{Name: name}
	}
	for i := range uint64(rapid.IntRange(1, 3).Draw(rt, "events")) {
		sender, id := m.name(rt, "sender"), rapid.SampledFrom([]string{"", "c1", "c2"}).Draw(rt, "client id")
		if r.find(sender, id) != 0 || slices.ContainsFunc(a.Events, func(e store.Event) bool { return e.Sender == sender && e.ClientID == id }) {
			id = "" // a room never publishes one that is retained
		}
		offset := a.Expect + 1 + i
		e := store.Event{Encoded: message(m.t, offset, sender, id, "text"), Sender: sender, ClientID: id}
		a.Events = append(a.Events, e)
		if rapid.Bool().Draw(rt, "member change") {
			a.Members = append(a.Members, store.MemberChange{
				User: m.name(rt, "user"), Joined: rapid.Bool().Draw(rt, "joined"), Offset: offset, By: sender})
		}
	}
	done := make(chan error, 1)
	a.Done = func(err error) { done <- err }
	err := m.log(name).Append(a)
	if err == nil {
		err = <-done
	}
	if (err == nil) != (wrong == 0) || err != nil && !errors.Is(err, store.ErrConflict) {
		rt.Fatalf("Append(%q, %d) to head %d: %v", name, a.Expect, head, err)
	}
	if err != nil {
		delete(m.logs, name)
		return
	}
	m.apply(name, a)
}

// find returns the offset of a retained event; a nil room has none.
func (r *modelRoom) find(sender, id string) uint64 {
	if r == nil || id == "" {
		return 0
	}
	for i := len(r.events); uint64(i) >= r.oldest; i-- {
		if e := r.events[i-1]; e.Sender == sender && e.ClientID == id {
			return uint64(i)
		}
	}
	return 0
}

// apply does to the model what a successful append does.
func (m *model) apply(name string, a *store.Append) {
	r := m.rooms[name]
	if r == nil {
		r = &modelRoom{oldest: 1, members: make(map[string]uint64)}
		m.rooms[name] = r
	}
	if n, now := len(r.stretches), m.log(name).Incarnation(); n == 0 || r.stretches[n-1].Incarnation != now {
		r.stretches = append(r.stretches, store.Stretch{Incarnation: now, First: a.Expect + 1})
	}
	r.events = append(r.events, a.Events...)
	for _, c := range a.Members {
		if delete(r.members, c.User); c.Joined {
			r.members[c.User] = c.Offset
		}
		if m.users[c.User] == nil {
			m.users[c.User] = make(map[string]store.UserRoom)
		}
		m.users[c.User][name] = store.UserRoom{Room: name, Joined: c.Joined, Offset: c.Offset, By: c.By}
	}
}

// Trim trims by any mix of bounds.
func (m *model) Trim(rt *rapid.T) {
	name := m.name(rt, "room")
	b := store.Bounds{
		MaxEvents: uint64(rapid.IntRange(0, 6).Draw(rt, "max events")),
		MaxBytes:  uint64(rapid.IntRange(0, 1).Draw(rt, "by bytes") * rapid.IntRange(1, 800).Draw(rt, "max bytes")),
	}
	if n := rapid.IntRange(0, 10).Draw(rt, "since"); n > 0 {
		b.Since = epoch.Add(time.Duration(n) * time.Second)
	}
	if _, err := m.log(name).Trim(m.t.Context(), b); err != nil {
		rt.Fatalf("Trim(%q, %+v): %v", name, b, err)
	}
	if r := m.rooms[name]; r != nil {
		r.trim(b)
	}
}

func (r *modelRoom) trim(b store.Bounds) {
	within := func() bool {
		kept := r.events[r.oldest-1:]
		size := uint64(0)
		for _, e := range kept {
			size += uint64(len(e.Encoded))
		}
		old := epoch.Add(time.Duration(r.oldest) * time.Second).Before(b.Since)
		return (b.MaxEvents == 0 || uint64(len(kept)) <= b.MaxEvents) && (b.MaxBytes == 0 || size <= b.MaxBytes) && !old
	}
	for r.oldest <= uint64(len(r.events)) && !within() {
		r.oldest++
	}
}

// PutSession puts a session, sometimes with the wrong revision.
func (m *model) PutSession(rt *rapid.T) {
	id := m.name(rt, "session")
	old := m.sessions[id]
	s := store.Session{ID: id, User: m.name(rt, "user"), Created: epoch.Add(time.Duration(rapid.IntRange(0, 3).Draw(rt, "created"))),
		Attach: uint64(rapid.IntRange(0, 3).Draw(rt, "attach")), Checkpoint: uint64(rapid.IntRange(0, 9).Draw(rt, "checkpoint"))}
	if old != nil {
		s.Revision = old.session.Revision
	}
	wrong := rapid.SampledFrom([]uint64{0, 0, 0, 1}).Draw(rt, "wrong")
	s.Revision += wrong
	p := m.positions(rt)
	err := m.s.PutSession(m.t.Context(), s, p)
	if (err == nil) != (wrong == 0) || err != nil && !errors.Is(err, store.ErrConflict) {
		rt.Fatalf("PutSession(%+v) over %+v: %v", s, old, err)
	}
	if err != nil {
		return
	}
	s.Revision++
	if old == nil {
		old = &modelSession{positions: make(map[string]store.Position)}
		m.sessions[id] = old
	}
	s.Checkpoint = max(s.Checkpoint, old.session.Checkpoint)
	old.session = s
	old.save(p, s.Checkpoint)
}

func (m *model) positions(rt *rapid.T) (p []store.Position) {
	for range rapid.IntRange(0, 2).Draw(rt, "positions") {
		p = append(p, store.Position{Room: m.name(rt, "room"), Incarnation: "i", Offset: uint64(rapid.IntRange(0, 9).Draw(rt, "offset"))})
	}
	return p
}

func (s *modelSession) save(p []store.Position, checkpoint uint64) {
	for _, p := range p {
		p.Checkpoint = checkpoint
		s.positions[p.Room] = p
	}
}

// SavePositions saves positions, often for another attach number.
func (m *model) SavePositions(rt *rapid.T) {
	id := m.name(rt, "session")
	attach, checkpoint := uint64(rapid.IntRange(0, 3).Draw(rt, "attach")), uint64(rapid.IntRange(0, 9).Draw(rt, "checkpoint"))
	p := m.positions(rt)
	err := m.s.SavePositions(m.t.Context(), id, attach, checkpoint, p)
	s := m.sessions[id]
	var want error
	switch {
	case s == nil:
		want = store.ErrNotFound
	case s.session.Attach != attach:
		want = store.ErrConflict
	default:
		s.save(p, checkpoint)
		s.session.Checkpoint = max(s.session.Checkpoint, checkpoint)
	}
	if !errors.Is(err, want) {
		rt.Fatalf("SavePositions(%q, %d): %v; want %v", id, attach, err, want)
	}
}

// DeleteSession deletes a session, which may not exist.
func (m *model) DeleteSession(rt *rapid.T) {
	id := m.name(rt, "session")
	if err := m.s.DeleteSession(m.t.Context(), id); err != nil {
		rt.Fatal(err)
	}
	delete(m.sessions, id)
}

// Restart opens the store anew, after a Close or a cut of the power. All was
// acknowledged, so nothing may change. It is rare, because it is slow.
func (m *model) Restart(rt *rapid.T) {
	switch rapid.IntRange(0, 15).Draw(rt, "how") {
	case 0:
		m.opened(m.h.Reopen())
	case 1:
		if m.h.Crash != nil {
			m.opened(m.h.Crash())
		}
	default:
		clear(m.logs) // only the logs
	}
}

func (m *model) opened(s store.Store) {
	m.s = s
	clear(m.logs)
}

// Check is called by rapid after each action.
func (m *model) Check(rt *rapid.T) {
	if m.steps++; m.steps%5 == 0 { // comparing everything is slow
		m.compare(rt)
	}
}

// compare compares everything that the model knows.
func (m *model) compare(rt *rapid.T) {
	for name, r := range m.rooms {
		m.checkRoom(rt, m.log(name), r)
	}
	for user, rooms := range m.users {
		m.checkUser(rt, user, rooms)
	}
	byUser := make(map[string][]store.Session)
	for id, s := range m.sessions {
		got, err := m.s.Positions(m.t.Context(), id)
		want := slices.SortedFunc(maps.Values(s.positions), func(a, b store.Position) int { return cmp.Compare(a.Room, b.Room) })
		if err != nil || !slices.Equal(got, want) {
			rt.Fatalf("positions of %q: %+v, %v; want %+v", id, got, err, want)
		}
		byUser[s.session.User] = append(byUser[s.session.User], s.session)
	}
	for _, name := range modelNames { // users without sessions too
		m.checkSessions(rt, m.prefix+name, byUser[m.prefix+name])
	}
}

func (m *model) checkSessions(rt *rapid.T, user string, want []store.Session) {
	slices.SortFunc(want, func(a, b store.Session) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	got, err := m.s.Sessions(m.t.Context(), user)
	if err != nil {
		rt.Fatal(err)
	}
	equalSessions(m.t, got, want)
}

func (m *model) checkRoom(rt *rapid.T, l store.Log, r *modelRoom) {
	st := l.State()
	if st.Meta == nil || st.Head != uint64(len(r.events)) || st.Oldest != r.oldest ||
		int(st.Members) != len(r.members) || !slices.Equal(st.Stretches, r.stretches) {
		rt.Fatalf("state %+v; want head %d, oldest %d, members %v, stretches %v",
			st, len(r.events), r.oldest, r.members, r.stretches)
	}
	var want []byte
	for _, e := range r.events[r.oldest-1:] {
		want = append(want, e.Encoded...)
	}
	p, err := l.Read(m.t.Context(), 0, st.Head, 1<<30, nil)
	if err != nil || !bytes.Equal(p.Data, want) {
		events, _ := event.DecodeAll(p.Data)
		rt.Fatalf("Read: %v, %v; want [%d, %d]", events, err, r.oldest, st.Head)
	}
	for _, sender := range modelNames {
		for _, id := range []string{"c1", "c2"} {
			got, err := l.Lookup(m.t.Context(), m.prefix+sender, id)
			if want := r.find(m.prefix+sender, id); err != nil || got != want {
				rt.Fatalf("Lookup(%q, %q): %d, %v; want %d", sender, id, got, err, want)
			}
		}
	}
	var members []store.Member
	for _, user := range slices.Sorted(maps.Keys(r.members)) {
		members = append(members, store.Member{User: user, Joined: r.members[user]})
	}
	if got, err := l.Members(m.t.Context(), "", 100); err != nil || !slices.Equal(got, members) {
		rt.Fatalf("Members: %v, %v; want %v", got, err, members)
	}
}

func (m *model) checkUser(rt *rapid.T, user string, want map[string]store.UserRoom) {
	got, version, err := m.s.UserRooms(m.t.Context(), user)
	if err != nil || version < m.version || len(got) != len(want) {
		rt.Fatalf("UserRooms(%q): %+v, version %d after %d, %v; want %+v", user, got, version, m.version, err, want)
	}
	m.version = version
	for i, r := range got {
		if r.Version == 0 || r.Version > version || i > 0 && got[i-1].Room >= r.Room {
			rt.Fatalf("UserRooms(%q): %+v, version %d", user, got, version)
		}
		if r.Version = 0; r != want[r.Room] {
			rt.Fatalf("UserRooms(%q): %+v; want %+v", user, r, want[r.Room])
		}
	}
}
