package reprise

import "context"

// Handler gets what happens in the client's rooms. All three methods are
// required, so that nobody ignores a gap or a rewind without deciding to.
//
// The methods are called one at a time, in order, on one goroutine, under no
// lock. The context ends when Run is to end. What a method was given is
// handled when it returns nil, and is then saved and acknowledged; when it
// returns an error Run ends with that error, and what it was given comes
// again after the next Run.
type Handler interface {
	// HandleEvent gets the next event of a room.
	HandleEvent(context.Context, Event) error
	// HandleGap gets a range that is not sent. A program that shows history
	// shows the hole; one that keeps state of a room rebuilds it.
	HandleGap(context.Context, Gap) error
	// HandleRewind says to forget what is held of a room after an offset.
	HandleRewind(context.Context, Rewind) error
}

// StartHandler may be implemented by a Handler that wants to know where each
// room begins. One that keeps positions itself ([HandlerStore]) has to: a room
// of which it keeps no position has no place to go on from.
type StartHandler interface {
	// HandleStart says where delivery of a room begins that the client has no
	// position of: what comes next in that room comes after p. It is the first
	// that is heard of a room, and comes again after the room was left.
	HandleStart(ctx context.Context, p Position) error
}

// RoomHandler may be implemented by a Handler that wants to know its rooms.
type RoomHandler interface {
	// HandleRoom says that a room is new to this session, or has moved.
	HandleRoom(context.Context, RoomState) error
	// HandleRoomClosed says that the user is no longer a member of a room. Its
	// position is forgotten.
	HandleRoomClosed(context.Context, RoomClosed) error
}

// UnavailableHandler may be implemented by a Handler that wants to know which
// rooms the server cannot read just now.
type UnavailableHandler interface {
	// HandleUnavailable says that nothing of a room comes until the server can
	// read it again, which it tries by itself. Then HandleRoom is called, and
	// delivery goes on where it was: nothing is left out.
	HandleUnavailable(context.Context, RoomUnavailable) error
}

// RoomUnavailable says that the server cannot read a room just now; the others
// go on.
type RoomUnavailable struct {
	Room string
	// Reason is one of the server's reasons: "ROOM_UNAVAILABLE".
	Reason string
}

// CaughtUpHandler may be implemented by a Handler that wants to know when a
// replay has ended.
type CaughtUpHandler interface {
	// HandleCaughtUp says that a room (all rooms, if the name is empty) has
	// reached the head it had when the session was attached.
	HandleCaughtUp(context.Context, CaughtUp) error
}

// RoomState describes a room to the client: at each attach for rooms that are
// new or have moved, and when the user joins one.
type RoomState struct {
	// Room as it is now.
	Room *Room
	// Position is where delivery starts.
	Position Position
	// Gained reports that the user joined since the session was last
	// attached.
	Gained bool
}

// RoomClosed says that the user is not a member of a room any more.
type RoomClosed struct {
	Room string
	// Reason is "LEFT", or "" when no record says why.
	Reason string
	// By is the user who caused it, Offset the event by which it ended; empty
	// and 0 when not known.
	By     string
	Offset uint64
}

// CaughtUp ends the replay of a room, or of all rooms.
type CaughtUp struct {
	// Room is empty when all rooms have caught up.
	Room string
	// Offset is the room's head that was reached, under Incarnation.
	Offset      uint64
	Incarnation string
}
