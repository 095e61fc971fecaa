package line

import (
	"strings"
	"testing"
	"time"

	reprise "github.com/reprise-chat/reprise/client"
	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

var at = time.Date(2026, time.November, 24, 9, 30, 5, 0, time.UTC)

func event(body *reprisev1.Event) reprise.Event {
	return reprise.Event{
		Room: "lobby", Incarnation: "i_1", Offset: 7, After: 5, Time: at,
		Sender: "alice", ClientID: "c1", Proto: body,
	}
}

func member(kind reprisev1.MemberChange_Kind, user string) reprise.Event {
	return event(&reprisev1.Event{Body: &reprisev1.Event_MemberChange{MemberChange: &reprisev1.MemberChange{Kind: kind, User: user}}})
}

func TestRecords(t *testing.T) {
	const head = `"room":"lobby","incarnation":"i_1","offset":7,"after":5,"time":"2026-11-24T09:30:05Z","sender":"alice","client_id":"c1"`
	for _, c := range []struct {
		record     Record
		json, text string
	}{
		{
			OfEvent(event(&reprisev1.Event{Body: &reprisev1.Event_Message{Message: &reprisev1.Message{Text: "a\nb"}}})),
			`{"type":"message",` + head + `,"text":"a\nb"}`, "alice: a\n                    b",
		},
		{
			OfEvent(event(&reprisev1.Event{Body: &reprisev1.Event_Custom{Custom: &reprisev1.Custom{Type: "move", Data: "{}"}}})),
			`{"type":"custom",` + head + `,"custom":"move","data":"{}"}`, "* alice sent move: {}",
		},
		{OfEvent(member(reprisev1.MemberChange_KIND_JOINED, "bob")), `{"type":"joined",` + head + `,"user":"bob"}`, "* bob joined (by alice)"},
		{OfEvent(member(reprisev1.MemberChange_KIND_INVITED, "bob")), `{"type":"invited",` + head + `,"user":"bob"}`, "* alice invited bob"},
		{OfEvent(member(reprisev1.MemberChange_KIND_LEFT, "alice")), `{"type":"left",` + head + `,"user":"alice"}`, "* alice left"},
		{
			OfEvent(event(&reprisev1.Event{Body: &reprisev1.Event_RoomChange{RoomChange: &reprisev1.RoomChange{Title: "Hall"}}})),
			`{"type":"created",` + head + `,"title":"Hall"}`, "* alice created the room: Hall",
		},
		{OfEvent(event(&reprisev1.Event{})), `{"type":"unknown",` + head + `}`, "* alice did something that this version does not know"},
		{
			OfGap(reprise.Gap{Room: "lobby", First: 2, Last: 4, Reason: reprise.GapNotVisible}),
			`{"type":"gap","room":"lobby","first":2,"last":4,"reason":"NOT_VISIBLE"}`, "-- 2 to 4 are not shown: not visible --",
		},
		{
			OfGap(reprise.Gap{Room: "lobby", First: 2, Last: 2, Reason: reprise.GapPositionUnknown}),
			`{"type":"gap","room":"lobby","first":2,"last":2,"reason":"POSITION_UNKNOWN"}`, "-- 2 is not shown: where we were is not known --",
		},
		{
			OfRewind(reprise.Rewind{Room: "lobby"}),
			`{"type":"rewind","room":"lobby","to":0}`, "-- the server's log is not the one we knew: everything after 0 is forgotten --",
		},
		{OfCaughtUp(reprise.CaughtUp{Room: "lobby", Offset: 7}), `{"type":"caught_up","room":"lobby","offset":7}`, "-- caught up with 7 --"},
	} {
		got, err := c.record.JSON()
		if err != nil || string(got) != c.json {
			t.Errorf("got  %s, %v\nwant %s", got, err, c.json)
		}
		if got := c.record.Plain(); !strings.HasSuffix(got, c.text) {
			t.Errorf("got %q, want it to end in %q", got, c.text)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("plain")
	f.Add("a\x1b[31mred\x1b[0m\u202e\xff\r\n\t")
	f.Fuzz(func(t *testing.T, text string) {
		got := Clean(text)
		for _, c := range got {
			if c != '\n' && (c < ' ' || c >= 0x7f && c < 0xa0 || c >= 0x202a && c <= 0x202e || c >= 0x2066 && c <= 0x2069) {
				t.Errorf("Clean(%q) leaves %U in %q", text, c, got)
			}
		}
		if again := Clean(got); again != got {
			t.Errorf("Clean(%q) is %q, and cleaned again %q", text, got, again)
		}
	})
}

// A title that an older server let through makes no rows of its own in a list.
func TestOneLine(t *testing.T) {
	if got, want := One("a\r\nlobby  1\n\x1b[2J"), "a lobby  1 \ufffd[2J"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
