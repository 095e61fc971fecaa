// Package store says what a Reprise engine does: durable logs of rooms, the
// members that those logs decide, and sessions with their positions.
//
// There is one suite of tests for every engine, in storetest.
//
// # Rules for every method
//
// Methods are safe for concurrent use unless they say otherwise. A method
// that takes a context returns the context's error when it ends first; a
// write may still happen then. Slices and strings passed in are not kept or
// changed after the call returned (for [Log.Append]: after Done was called).
// Slices returned belong to the caller.
//
// Durable means: synced to disk (a cluster: by a majority), so that it
// survives kill -9 and the loss of power. Nothing is visible to reads before
// it is durable.
package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Errors that engines return, possibly wrapped.
var (
	// ErrNotFound: no such session.
	ErrNotFound = errors.New("store: not found")
	// ErrConflict: a compare-and-swap found something else than the caller
	// had seen. Nothing was changed. Read again, decide again, retry.
	ErrConflict = errors.New("store: conflict")
	// ErrClosed: the store is closed or has failed for good.
	ErrClosed = errors.New("store: closed")
	// ErrDiskReserve: the disk is so full that writes are refused; reads go
	// on. Ends by itself when there is room again.
	ErrDiskReserve = errors.New("store: free disk space is below the reserve")
	// ErrLocked: another process has the data directory open.
	ErrLocked = errors.New("store: data directory is in use by another process")
	// ErrCorrupt: stored bytes are not what was written.
	ErrCorrupt = errors.New("store: corrupt")
	// ErrRead: the disk did not give what it has. It may the next time.
	ErrRead = errors.New("store: read failed")
	// ErrQueueFull: too many bytes of appends wait to be committed. The caller
	// should have bounded what it has outstanding; it ends by itself.
	ErrQueueFull = errors.New("store: too many appends wait to be committed")
)

// Store is an engine.
type Store interface {
	// Incarnation is the random id of this start of the store. Every
	// [Log.Incarnation] begins with it.
	Incarnation() string

	// OpenLog returns the log of a room, whether the room exists or not. A
	// caller appends to at most one Log of a room at a time.
	OpenLog(ctx context.Context, room string) (Log, error)

	// Rooms returns up to limit names of existing rooms that sort after
	// `after`, in byte order.
	Rooms(ctx context.Context, after string, limit int) ([]string, error)

	// Version is that of the newest change of a membership that is visible.
	Version() uint64

	// UserRooms returns the user's memberships by room name: those that are
	// current, and the newest [MaxEnded] of those that have ended. It also returns a
	// version of which they are a snapshot: every change with a Version up to it
	// is included, every later change gets a greater one.
	UserRooms(ctx context.Context, user string) (rooms []UserRoom, version uint64, err error)
	// CountRooms returns how many current memberships the user has. It reads
	// one record, however many there are.
	CountRooms(ctx context.Context, user string) (int, error)
	// Invitations returns up to limit open invitations of a user to rooms whose
	// names are not before from, by room name.
	Invitations(ctx context.Context, user, from string, limit int) ([]Invitation, error)
	// CountInvitations returns how many invitations by a user to another are
	// open. It reads one record.
	CountInvitations(ctx context.Context, user, by string) (int, error)

	// EmptyRooms returns up to limit rooms without members, in the order in
	// which they lost the last one, from the one after `after` to the one at
	// upTo. Places are versions, as of [Store.Version].
	EmptyRooms(ctx context.Context, after, upTo uint64, limit int) ([]EmptyRoom, error)
	// RemoveRoom removes a room with its log, its client ids and its open
	// invitations, all at once, if it is still empty as r says; removed is false
	// if it is not. Durable when it returns. Its name can be used again, for
	// a room whose log has another incarnation. Logs of it that are open are then
	// logs of a room that does not exist. What users had as members of it stays.
	RemoveRoom(ctx context.Context, r EmptyRoom) (removed bool, err error)

	// Session returns a session, or ErrNotFound.
	Session(ctx context.Context, id string) (Session, error)
	// Sessions returns all sessions of a user, by creation time.
	Sessions(ctx context.Context, user string) ([]Session, error)
	// PutSession writes s and, in the same commit, replaces the positions of
	// the rooms named in p. It is a compare-and-swap: s.Revision must be the
	// stored one (0: there must be none), and the stored one becomes
	// s.Revision + 1; otherwise ErrConflict. The engine sets Used. Durable when
	// it returns.
	PutSession(ctx context.Context, s Session, p []Position) error
	// DeleteSession removes a session and its positions. Durable when it
	// returns. Removing what is not there is not an error.
	DeleteSession(ctx context.Context, id string) error
	// Positions returns the stored positions of a session, by room name.
	Positions(ctx context.Context, id string) ([]Position, error)
	// SavePositions replaces the positions of the rooms named in p and raises
	// the session's Checkpoint to checkpoint, without changing its Revision,
	// if the session's attach number is still attach; otherwise ErrConflict
	// (ErrNotFound if there is no such session). The engine sets Used. Durable
	// when it returns.
	SavePositions(ctx context.Context, id string, attach, checkpoint uint64, p []Position) error

	// Clock returns the time that NoteClock noted last, zero if it never did.
	Clock(ctx context.Context) (time.Time, error)
	// NoteClock notes the time of day, as it is believed to be. Durable when it
	// returns.
	NoteClock(ctx context.Context, now time.Time) error

	// Writable returns nil, or why writes are refused now: ErrDiskReserve,
	// ErrClosed. Cheap: it is asked before each publish.
	Writable() error
	// Failed is closed when the engine can no longer promise durability. It
	// never recovers: the process should stop acknowledging and exit.
	Failed() <-chan struct{}
	// Close commits what was queued, waits for every Done, and releases the
	// data. The caller has stopped using the store.
	Close() error
}

// Log is the log of one room together with the members it decides. It holds
// the engine's state of the room, so it is cheap to append to.
type Log interface {
	// State returns what is durable now.
	State() State

	// Append queues a to be committed and returns at once. Appends to one Log
	// are committed in the order of the calls, which the caller serialises;
	// many may be outstanding. Appends of all rooms that wait are committed
	// and synced together.
	//
	// An error (ErrDiskReserve, ErrQueueFull, ErrClosed) says that a was not
	// queued: Done is not called, and the Log is as it was, so that the next
	// append may have the same Expect. What was queued before a disk fills up is
	// not refused any more.
	//
	// It is a compare-and-swap: a is committed only if the room's head is
	// a.Expect at its turn, otherwise its error is ErrConflict. After an append
	// that fails at its turn every later one to this Log fails too (with
	// ErrConflict), because it was numbered from what did not happen. A Log that
	// is opened anew takes appends again.
	Append(a *Append) error

	// Read returns the encoded events of offsets in (after, to], oldest
	// first, appended to buf: as many as fit into maxBytes, but at least one if
	// there is one. It never returns an event beyond the durable head, nor one
	// before the oldest. An empty Page (Last == 0) means there is nothing.
	Read(ctx context.Context, after, to uint64, maxBytes int, buf []byte) (Page, error)

	// Lookup returns the offset of the retained event that sender published
	// with clientID, or 0.
	Lookup(ctx context.Context, sender, clientID string) (uint64, error)

	// Incarnation is the one that the next append belongs to: it is of this
	// start of the store, and of this room and no other of its name. Empty if
	// the room does not exist yet.
	Incarnation() string

	// Invitation returns a user's open invitation; ok is false if there is none.
	Invitation(ctx context.Context, user string) (i Invitation, ok bool, err error)
	// CountInvitedBy returns how many invitations to the room by a user are
	// open, in time that grows with how many are open to it.
	CountInvitedBy(ctx context.Context, by string) (int, error)
	// Member returns a user's membership; ok is false if there is none.
	Member(ctx context.Context, user string) (m Member, ok bool, err error)
	// Members returns up to limit members whose names are not before from, in
	// byte order.
	Members(ctx context.Context, from string, limit int) ([]Member, error)

	// Trim removes the oldest events that are beyond r, with their client
	// ids, and returns the new state. Offsets never restart: an emptied room
	// keeps its head. Long work: it yields to the context between batches, and
	// what was trimmed until then stays trimmed. Not concurrent with itself.
	Trim(ctx context.Context, r Bounds) (State, error)
}

// State is what is durable of a room. The zero State is a room that does not
// exist.
type State struct {
	// Meta describes the room; nil if it does not exist.
	Meta *Meta
	// Head is the newest offset, 0 if there was never an event.
	Head uint64
	// Oldest is the oldest retained offset; Head+1 if nothing is retained.
	Oldest uint64
	// Members is how many members the room has.
	Members uint32
	// Invited is how many invitations to it are open.
	Invited uint32
	// Stretches lists the incarnations of the log, oldest first: each holds
	// the offsets from its First to the next one's First-1, the last one to
	// Head. Shared; never changed in place.
	Stretches []Stretch
}

// Stretch is a part of a log that was written under one incarnation.
type Stretch struct {
	Incarnation string
	First       uint64
}

// Meta describes a room. It is written once, when the room is created.
type Meta struct {
	Name      string
	Title     string
	Private   bool
	Creator   string
	Created   time.Time
	Retention Retention
}

// Retention bounds what a room keeps. A zero field does not limit.
type Retention struct {
	MaxAge    time.Duration
	MaxEvents uint64
	MaxBytes  uint64
}

// IsZero reports whether r keeps everything.
func (r Retention) IsZero() bool { return r == Retention{} }

// Bounds says what Trim keeps: events not older than Since, the newest
// MaxEvents, the newest MaxBytes of encoded events. A zero field does not
// limit.
type Bounds struct {
	Since     time.Time
	MaxEvents uint64
	MaxBytes  uint64
}

// Append is one atomic addition to a room.
type Append struct {
	// Expect is the room's head that the caller numbered from.
	Expect uint64
	// Create is set on the first append to a room that does not exist, and
	// only then.
	Create *Meta
	// Events has at least one event; their offsets are Expect+1, Expect+2, ...
	Events []Event
	// Members changes memberships by these events.
	Members []MemberChange
	// Done is called exactly once for an append that was queued, by a goroutine
	// of the engine, in the order of the appends to this Log, with nil when the
	// append is durable and visible to reads. It must not block.
	Done func(error)
}

// Event is an event to append.
type Event struct {
	// Encoded is the event as package event encodes it, with its offset.
	Encoded []byte
	// Sender and ClientID are indexed for Lookup if ClientID is not empty.
	Sender, ClientID string
}

// MemberChange is the beginning or the end of a membership, or an invitation.
type MemberChange struct {
	User string
	// Joined: the membership begins, and an open invitation is used up.
	// Invited: it does neither, and the user is invited; nothing is changed if
	// the user is a member or invited already. Neither: it ends.
	Joined, Invited bool
	// Offset is that of the event that says so.
	Offset uint64
	// By is the user who caused it.
	By string
	// Time is kept of an invitation.
	Time time.Time
}

// MaxEnded is how many memberships of a user that have ended are remembered,
// the newest ones.
const MaxEnded = 1000

// Invitation is an open invitation.
type Invitation struct {
	Room, User string
	// By is the user who invited.
	By string
	// Offset is that of the event that says so.
	Offset uint64
	Time   time.Time
}

// EmptyRoom is a room without members.
type EmptyRoom struct {
	Name string
	// Version is its place among all empty rooms.
	Version uint64
}

// Member is a current membership.
type Member struct {
	User string
	// Joined is the offset of the event by which it began.
	Joined uint64
}

// UserRoom is a membership as seen from the user, current or ended.
type UserRoom struct {
	Room string
	// Joined: a current membership; otherwise it has ended.
	Joined bool
	// Offset is that of the event by which it began or ended.
	Offset uint64
	// By is the user who caused that.
	By string
	// Version orders the change among all changes of the user's memberships.
	Version uint64
}

// Page is a range of encoded events, one after another.
type Page struct {
	// Data holds them, ready to be the elements of an Events message.
	Data []byte
	// First and Last are their offsets; Last is 0 if there are none.
	First, Last uint64
}

// Session is a session's durable record, without its positions.
type Session struct {
	ID   string
	User string
	// Revision is for compare-and-swap; see [Store.PutSession].
	Revision uint64
	// Attach is the attach number: the fencing token.
	Attach uint64
	// Keys are the resume keys that are valid, oldest first: the last one
	// proven and those minted since.
	Keys []Key
	// Created and Attached are for people. Nothing is decided by them.
	Created, Attached time.Time
	// Used orders sessions by their last use, which is an attach or an
	// acknowledgement: greater than that of any session put or saved before,
	// whatever the clock says. 0 if that was before there were such numbers.
	Used uint64
	// Seen is the version of the user's memberships at the last attach.
	Seen uint64
	// Checkpoint numbers the stored state of the positions. PutSession never
	// lowers the stored one.
	Checkpoint uint64
}

// Key is a resume key as stored.
type Key struct {
	// Hash is the SHA-256 of the key.
	Hash [32]byte
	// Attach is the attach number it was minted for.
	Attach uint64
	// Told is one more than the version of the user's memberships that the
	// Welcome with this key told the client; 0 if that was not recorded.
	Told uint64
}

// Position is a session's acknowledged place in a room.
type Position struct {
	Room        string
	Incarnation string
	Offset      uint64
	// Checkpoint is the session's checkpoint number by which this was stored.
	Checkpoint uint64
	// Gone, in a write: there is to be no position in the room.
	Gone bool
}

// CorruptError says where damage was found. It wraps ErrCorrupt.
type CorruptError struct {
	// Room and Offset say which event is concerned, if one is.
	Room   string
	Offset uint64
	// Detail says what is wrong.
	Detail string
}

func (e *CorruptError) Error() string {
	if e.Room == "" {
		return fmt.Sprintf("store: corrupt: %s", e.Detail)
	}
	return fmt.Sprintf("store: corrupt: room %q offset %d: %s", e.Room, e.Offset, e.Detail)
}

func (e *CorruptError) Unwrap() error { return ErrCorrupt }
