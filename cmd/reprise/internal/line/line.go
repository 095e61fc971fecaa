// Package line turns what a room hands over into a line of text for people
// and a record for programs.
package line

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"

	reprise "github.com/reprise-chat/reprise/client"
	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// Record is what --json prints: one object a line, told apart by Type. Fields
// that do not belong to a type are left out.
type Record struct {
	// Type is message, custom, joined, left, created, unknown (an event of a
	// newer server), gap, rewind or caught_up.
	Type        string `json:"type"`
	Room        string `json:"room,omitempty"`
	Incarnation string `json:"incarnation,omitempty"`

	// Of an event.
	Offset   uint64     `json:"offset,omitempty"`
	After    *uint64    `json:"after,omitempty"`
	Time     *time.Time `json:"time,omitempty"`
	Sender   string     `json:"sender,omitempty"`
	ClientID string     `json:"client_id,omitempty"`
	Replayed bool       `json:"replayed,omitempty"`
	Text     string     `json:"text,omitempty"`   // message
	Custom   string     `json:"custom,omitempty"` // the application's type
	Data     string     `json:"data,omitempty"`   // custom
	User     string     `json:"user,omitempty"`   // joined, left
	Title    string     `json:"title,omitempty"`  // created

	// Of a gap, both ends included.
	First       uint64 `json:"first,omitempty"`
	Last        uint64 `json:"last,omitempty"`
	Reason      string `json:"reason,omitempty"`
	Recoverable bool   `json:"recoverable,omitempty"`

	// Of a rewind: what is after it is to be forgotten.
	To *uint64 `json:"to,omitempty"`
}

// OfEvent returns the record of an event.
func OfEvent(e reprise.Event) Record {
	at := e.Time.UTC()
	r := Record{
		Type: "unknown", Room: e.Room, Incarnation: e.Incarnation,
		Offset: e.Offset, After: &e.After, Time: &at,
		Sender: e.Sender, ClientID: e.ClientID, Replayed: e.Replayed,
	}
	switch body := e.Proto.GetBody().(type) {
	case *reprisev1.Event_Message:
		r.Type, r.Text = "message", body.Message.GetText()
	case *reprisev1.Event_Custom:
		r.Type, r.Custom, r.Data = "custom", body.Custom.GetType(), body.Custom.GetData()
	case *reprisev1.Event_MemberChange:
		r.User = body.MemberChange.GetUser()
		switch body.MemberChange.GetKind() {
		case reprisev1.MemberChange_KIND_JOINED:
			r.Type = "joined"
		case reprisev1.MemberChange_KIND_LEFT:
			r.Type = "left"
		case reprisev1.MemberChange_KIND_INVITED:
			r.Type = "invited"
		}
	case *reprisev1.Event_RoomChange:
		r.Type, r.Title = "created", body.RoomChange.GetTitle()
	}
	return r
}

// OfGap returns the record of a gap.
func OfGap(g reprise.Gap) Record {
	return Record{
		Type: "gap", Room: g.Room, Incarnation: g.Incarnation,
		First: g.First, Last: g.Last, Reason: string(g.Reason), Recoverable: g.Recoverable,
	}
}

// OfRewind returns the record of a rewind.
func OfRewind(r reprise.Rewind) Record {
	return Record{Type: "rewind", Room: r.Room, Incarnation: r.Incarnation, To: &r.To}
}

// OfCaughtUp returns the record of a caught up room.
func OfCaughtUp(c reprise.CaughtUp) Record {
	return Record{Type: "caught_up", Room: c.Room, Incarnation: c.Incarnation, Offset: c.Offset}
}

// JSON returns the record as one line, without the line's end.
func (r Record) JSON() ([]byte, error) { return json.Marshal(r) }

// Said reports that a person said it, so that the sender belongs in front of
// it; anything else is told.
func (r Record) Said() bool { return r.Type == "message" }

// String returns what happened, without when and, for a message, without who.
// It is safe to print on a terminal. It may have several lines.
func (r Record) String() string {
	switch r.Type {
	case "message":
		return Clean(r.Text)
	case "custom":
		return Clean(fmt.Sprintf("%s sent %s: %s", r.Sender, r.Custom, r.Data))
	case "joined", "left":
		if r.User != r.Sender && r.Sender != "" {
			return Clean(fmt.Sprintf("%s %s (by %s)", r.User, r.Type, r.Sender))
		}
		return Clean(fmt.Sprintf("%s %s", r.User, r.Type))
	case "invited":
		return Clean(fmt.Sprintf("%s invited %s", r.Sender, r.User))
	case "created":
		if r.Title != "" {
			return Clean(fmt.Sprintf("%s created the room: %s", r.Sender, r.Title))
		}
		return Clean(r.Sender + " created the room")
	case "gap":
		return r.gap()
	case "rewind":
		return fmt.Sprintf("the server's log is not the one we knew: everything after %d is forgotten", *r.To)
	case "caught_up":
		return fmt.Sprintf("caught up with %d", r.Offset)
	}
	return Clean(r.Sender + " did something that this version does not know")
}

func (r Record) gap() string {
	what := fmt.Sprintf("%d to %d are not shown", r.First, r.Last)
	if r.First == r.Last {
		what = fmt.Sprintf("%d is not shown", r.First)
	}
	switch reprise.GapReason(r.Reason) {
	case reprise.GapRetention:
		return what + ": no longer kept by the server"
	case reprise.GapReplayLimit:
		return what + ": too many to replay; scroll back for them"
	case reprise.GapPositionUnknown:
		return what + ": where we were is not known"
	}
	return what + ": " + strings.ToLower(strings.ReplaceAll(r.Reason, "_", " "))
}

// Plain returns the record as plain lines: time, sender and text. Continuation
// lines are indented.
func (r Record) Plain() string {
	text := r.String()
	switch {
	case r.Said():
		text = Clean(r.Sender) + ": " + text
	case r.Time == nil:
		return "-- " + text + " --"
	default:
		text = "* " + text
	}
	at := r.Time.Local().Format("2006-01-02 15:04:05 ")
	return at + strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", len(at)))
}

// One returns text as Clean does, on one line.
func One(text string) string { return strings.ReplaceAll(Clean(text), "\n", " ") }

// Clean returns text without what could drive a terminal or reverse the order
// of what is read: control characters and marks of direction become U+FFFD.
// Line ends stay, tabs become blanks.
func Clean(text string) string {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\n':
			return c
		case c == '\t':
			return ' '
		case unicode.IsControl(c), unicode.Is(unicode.Bidi_Control, c):
			return unicode.ReplacementChar
		}
		return c
	}, strings.ToValidUTF8(text, string(unicode.ReplacementChar)))
}
