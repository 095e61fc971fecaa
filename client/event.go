package reprise

import (
	"fmt"
	"strings"
	"time"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// Event is one entry of a room's log. Its values belong to the receiver; the
// message in Proto is not changed by anybody.
type Event struct {
	// Room and Incarnation say which log, and which history of it, Offset
	// belongs to.
	Room        string
	Incarnation string
	// Offset is the event's place in its room: 1 for the first, strictly
	// increasing. After is the offset of the event before it.
	Offset, After uint64
	// Time is when the server accepted the event, by its clock.
	Time time.Time
	// Sender is the user who caused it, ClientID the idempotency key it was
	// sent with, if any.
	Sender   string
	ClientID string
	// Replayed reports that the event was delivered before its room had
	// caught up with the head it had when the session was attached. It is
	// otherwise the same event.
	Replayed bool
	// Proto is the event as every reader is sent it; its body says what
	// happened. A program skips a body it does not know.
	Proto *reprisev1.Event

	earlier []Stretch
	gaps    []Gap
}

// String describes the event for people, on one line as long as its text is:
// "lobby/3 alice: hello".
func (e Event) String() string {
	what := "did something that this program does not know"
	switch p := e.Proto; {
	case p.GetMessage() != nil:
		return fmt.Sprintf("%s/%d %s: %s", e.Room, e.Offset, e.Sender, e.Text())
	case p.GetMemberChange() != nil:
		return fmt.Sprintf("%s/%d %s %s", e.Room, e.Offset, p.GetMemberChange().GetUser(),
			strings.ToLower(strings.TrimPrefix(p.GetMemberChange().GetKind().String(), "KIND_")))
	case p.GetRoomChange() != nil:
		what = "created the room"
	case p.GetCustom() != nil:
		what = fmt.Sprintf("sent %s: %s", p.GetCustom().GetType(), p.GetCustom().GetData())
	}
	return fmt.Sprintf("%s/%d %s %s", e.Room, e.Offset, e.Sender, what)
}

// Text returns the text of a posted message, "" for any other event.
func (e Event) Text() string { return e.Proto.GetMessage().GetText() }

// Position returns the place of a client that has handled e, for programs
// that keep their positions in their own transactions ([HandlerStore]). It is
// for events that a Handler was given: one that was fetched ([Client.FetchGap],
// [Client.ListEvents]) lies behind the place where its client is.
func (e Event) Position() Position {
	return Position{Room: e.Room, Incarnation: e.Incarnation, Offset: e.Offset, Earlier: e.earlier, Gaps: e.gaps}
}

// Gap is a range of offsets that the client is not sent, and why. A gap is
// handled when the handler has returned; after it the client holds Last.
type Gap struct {
	Room        string    `json:"room"`
	First       uint64    `json:"first"`
	Last        uint64    `json:"last"`
	Reason      GapReason `json:"reason"`
	Incarnation string    `json:"incarnation,omitempty"`
	// Recoverable reports that [Client.FetchGap] may still return some of the
	// range. Recoverable gaps are kept beside the positions until then.
	Recoverable bool `json:"recoverable,omitempty"`

	earlier []Stretch
	gaps    []Gap
}

// String describes the gap for people.
func (g Gap) String() string {
	return fmt.Sprintf("gap in %s: %d to %d not sent (%s)", g.Room, g.First, g.Last, g.Reason)
}

// Position returns the place of a client that has handled g; a recoverable gap
// is among its open ones.
func (g Gap) Position() Position {
	return Position{Room: g.Room, Incarnation: g.Incarnation, Offset: g.Last, Earlier: g.earlier, Gaps: g.gaps}
}

// GapReason says why a range of offsets is not sent.
type GapReason string

// Reasons of a Gap.
const (
	// GapRetention: the room's retention has removed the events.
	GapRetention GapReason = "RETENTION"
	// GapReplayLimit: more events than the replay limit; fetch them.
	GapReplayLimit GapReason = "REPLAY_LIMIT"
	// GapPositionUnknown: neither the client nor the server knows where the
	// client was.
	GapPositionUnknown GapReason = "POSITION_UNKNOWN"
	// GapNotVisible: outside what the user may see.
	GapNotVisible GapReason = "NOT_VISIBLE"
	// GapFiltered: left out at the client's own request.
	GapFiltered GapReason = "FILTERED"
	// GapUnspecified: a reason this client does not know.
	GapUnspecified GapReason = "UNSPECIFIED"
)

// Rewind says that the log is not the one the client knew: an old backup was
// restored, or its tail was lost. Forget everything of the room after To;
// delivery restarts there. Offsets after To are given again, to other events.
type Rewind struct {
	Room string
	// To is the newest offset that the client and the log still share, 0 for
	// none; Incarnation is what it belongs to.
	To          uint64
	Incarnation string

	earlier []Stretch
	gaps    []Gap
}

// String describes the rewind for people.
func (r Rewind) String() string {
	return fmt.Sprintf("rewind of %s: forget everything after %d", r.Room, r.To)
}

// Position returns the place of a client that has handled r.
func (r Rewind) Position() Position {
	return Position{Room: r.Room, Incarnation: r.Incarnation, Offset: r.To, Earlier: r.earlier, Gaps: r.gaps}
}

// Records that the server keeps, as the contract defines them.
type (
	// Room is a named log with members.
	Room = reprisev1.Room
	// Member is one user's membership of one room.
	Member = reprisev1.Member
	// Invitation is an invitation that is open.
	Invitation = reprisev1.Invitation
	// Session is the place of one program in its user's rooms.
	Session = reprisev1.Session
	// Retention bounds what a room keeps.
	Retention = reprisev1.Retention
)

// Room access, for [CreateOptions].
const (
	// AccessOpen lets anybody join.
	AccessOpen = reprisev1.RoomAccess_ROOM_ACCESS_OPEN
	// AccessPrivate lets in the creator and the members named at creation.
	AccessPrivate = reprisev1.RoomAccess_ROOM_ACCESS_PRIVATE
)
