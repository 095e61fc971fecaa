package reprise

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// PositionStore keeps a client's session and positions. Run calls Load once,
// then Save, never concurrently. What Save was given is acknowledged to the
// server after it returned: it must be as durable as the program needs its
// memory of handled events to be. An error of either ends Run.
//
// The three ways to keep positions: [NewMemoryStore], [OpenFile], and the
// program's own transaction ([HandlerStore]).
type PositionStore interface {
	// Load returns everything saved, or the zero Saved.
	Load(context.Context) (Saved, error)
	// Save adds u to what is saved, all of it or nothing.
	Save(ctx context.Context, u Update) error
}

// Saved is all that a PositionStore keeps.
type Saved struct {
	Session SessionKey
	// Places has one entry for each room.
	Places []Place
	// Strict says that Places are all there is, of this and every earlier run
	// of the program: nothing of any other room was ever handled. Then a
	// client without a session does not begin a new one at the heads of its
	// rooms; each room without a place begins with a Gap POSITION_UNKNOWN over
	// all that it holds. Run requires a [StartHandler].
	Strict bool
}

// SessionKey is what a session is resumed with. Keep it as a secret.
type SessionKey struct {
	ID        string `json:"id"`
	ResumeKey string `json:"resume_key"`
	// Checkpoint names the newest state of the positions that the server is
	// known to have stored.
	Checkpoint string `json:"checkpoint,omitempty"`
}

// Place is what is kept of one room.
type Place struct {
	Position Position `json:"position"`
	// Moved reports that the position moved since SessionKey.Checkpoint.
	Moved bool `json:"moved,omitempty"`
	// Gaps are the open recoverable gaps of the room, oldest first.
	Gaps []Gap `json:"gaps,omitempty"`
}

// Update is a change of what is saved.
type Update struct {
	// Session replaces the session; nil leaves it.
	Session *SessionKey
	// Places replace the places of their rooms.
	Places []Place
	// Closed names rooms to forget.
	Closed []string
}

// apply changes places by u.
func (u Update) apply(session *SessionKey, places map[string]Place) {
	if u.Session != nil {
		*session = *u.Session
	}
	for _, p := range u.Places {
		places[p.Position.Room] = p
	}
	for _, room := range u.Closed {
		delete(places, room)
	}
}

// MemoryStore keeps positions for as long as the program runs.
type MemoryStore struct {
	mu      sync.Mutex
	session SessionKey
	places  map[string]Place
}

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore { return &MemoryStore{places: map[string]Place{}} }

// Load implements [PositionStore].
func (m *MemoryStore) Load(context.Context) (Saved, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Saved{Session: m.session, Places: slices.Collect(maps.Values(m.places))}, nil
}

// Save implements [PositionStore].
func (m *MemoryStore) Save(_ context.Context, u Update) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	u.apply(&m.session, m.places)
	return nil
}

// HandlerStore is for a program whose Handler saves positions itself, in the
// same transaction as what it makes of an event: [Event.Position] in
// HandleEvent, likewise for gaps, rewinds and starts ([StartHandler], which
// Run then requires), one record for each room. A Position is to be kept
// whole, for example as JSON. Then each event takes effect exactly once,
// whenever the program is killed, and a gap that can be fetched stays open
// until it was.
//
// Load returns the positions that were committed, none at the first start.
// What a room held before it had one is never left out in silence: it comes as
// a [Gap] POSITION_UNKNOWN. Therefore [Config.History] does not apply.
//
// Rest keeps the session, and nothing else. It may be a file, a row in the same
// database, or nil for memory: a session that is lost costs nothing but a new
// session id, because the positions are the program's own; but what happened
// in a room that the user was first made a member of while the program was
// away is then a gap, to be fetched. A rest that outlives the positions, as a
// file does when the database is restored from a backup, is to be removed.
//
// A program that forgets rooms it left implements [RoomHandler] and deletes
// their records in HandleRoomClosed.
func HandlerStore(load func(context.Context) ([]Position, error), rest PositionStore) PositionStore {
	if rest == nil {
		rest = NewMemoryStore()
	}
	return &handlerStore{load: load, rest: rest}
}

type handlerStore struct {
	load func(context.Context) ([]Position, error)
	rest PositionStore
}

func (h *handlerStore) Load(ctx context.Context) (Saved, error) {
	saved, err := h.rest.Load(ctx)
	if err != nil {
		return Saved{}, err
	}
	positions, err := h.load(ctx)
	if err != nil {
		return Saved{}, err
	}
	// The checkpoint says nothing about positions that were saved elsewhere:
	// every one of them is named at the resume.
	saved.Session.Checkpoint, saved.Places, saved.Strict = "", nil, true
	for _, p := range positions {
		place := Place{Position: p, Moved: true, Gaps: p.Gaps}
		place.Position.Gaps = nil
		saved.Places = append(saved.Places, place)
	}
	return saved, nil
}

// Save passes on what the handler does not save: usually nothing, so that an
// event costs no second write.
func (h *handlerStore) Save(ctx context.Context, u Update) error {
	if u.Session == nil {
		return nil
	}
	return h.rest.Save(ctx, Update{Session: u.Session})
}
