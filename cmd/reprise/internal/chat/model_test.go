package chat

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	reprise "github.com/reprise-chat/reprise/client"
	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

// screen drives a model as Bubble Tea would, without a server: what would ask
// one is returned as a command, which these tests do not run.
type screen struct {
	t      *testing.T
	model  *model
	outbox chan outgoing
}

func newScreen(t *testing.T, width, height int) *screen {
	t.Helper()
	outbox := make(chan outgoing, 2)
	m := newModel(t.Context(), nil, outbox, Options{Room: "lobby", User: "alice", Server: "127.0.0.1:9090"})
	s := &screen{t: t, model: m, outbox: outbox}
	s.send(tea.WindowSizeMsg{Width: width, Height: height})
	m.input.Focus()
	return s
}

func (s *screen) send(msgs ...tea.Msg) (last tea.Cmd) {
	for _, msg := range msgs {
		_, last = s.model.Update(msg)
	}
	return last
}

func (s *screen) press(keys ...tea.KeyPressMsg) (last tea.Cmd) {
	for _, k := range keys {
		last = s.send(k)
	}
	return last
}

// typed types text and enters it.
func (s *screen) typed(text string) tea.Cmd {
	for _, c := range text {
		s.press(tea.KeyPressMsg{Code: c, Text: string(c)})
	}
	return s.press(tea.KeyPressMsg{Code: tea.KeyEnter})
}

// text is what the terminal shows.
func (s *screen) text() string {
	var out strings.Builder
	for l := range strings.Lines(ansi.Strip(s.model.View().Content)) {
		out.WriteString(strings.TrimRight(l, " \n") + "\n")
	}
	return out.String()
}

func (s *screen) shows(want string) {
	s.t.Helper()
	if got := s.text(); !strings.Contains(got, want) {
		s.t.Errorf("%q is not on the screen:\n%s", want, got)
	}
}

func (s *screen) showsNot(unwanted string) {
	s.t.Helper()
	if got := s.text(); strings.Contains(got, unwanted) {
		s.t.Errorf("%q is on the screen:\n%s", unwanted, got)
	}
}

// golden compares the screen with a file.
func (s *screen) golden(name string) {
	s.t.Helper()
	file := filepath.Join("testdata", name+".golden")
	got := s.text()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	if got != string(want) {
		s.t.Errorf("the screen is\n%s\nand not as in %s (go test -update writes it anew)\n%s", got, file, want)
	}
}

var morning = time.Date(2026, time.November, 24, 9, 30, 0, 0, time.Local)

// message is an event of the lobby that comes minutes after the morning.
func message(offset uint64, sender, text string, minutes int) eventMsg {
	return eventMsg(reprise.Event{
		Room: "lobby", Incarnation: "i_1", Offset: offset, After: offset - 1, Sender: sender,
		Time:  morning.Add(time.Duration(minutes) * time.Minute),
		Proto: &reprisev1.Event{Body: &reprisev1.Event_Message{Message: &reprisev1.Message{Text: text}}},
	})
}

func joined(offset uint64, user string, minutes int) eventMsg {
	e := message(offset, user, "", minutes)
	e.Proto = &reprisev1.Event{Body: &reprisev1.Event_MemberChange{MemberChange: &reprisev1.MemberChange{
		Kind: reprisev1.MemberChange_KIND_JOINED, User: user,
	}}}
	return e
}

func replayed(e eventMsg) eventMsg {
	e.Replayed = true
	return e
}

func inRoom(e eventMsg, room string) eventMsg {
	e.Room = room
	return e
}

func live(replayed uint64) stateMsg {
	return stateMsg{Phase: reprise.Live, Outcome: reprise.OutcomeExact, Replayed: replayed, ToReplay: replayed}
}

func TestScreen(t *testing.T) {
	s := newScreen(t, 80, 24)
	s.send(
		roomMsg{Room: &reprisev1.Room{Name: "lobby", Title: "Everybody's room"}, Position: reprise.Position{Room: "lobby", Offset: 4}},
		historyMsg{room: "lobby", page: reprise.Page{Events: []reprise.Event{
			reprise.Event(message(1, "bob", "yesterday's news", -24*60)),
			reprise.Event(joined(2, "alice", 0)),
			reprise.Event(message(3, "bob", "Good morning! This one is long enough that it has to be wrapped beside its margin, and not below it.", 1)),
			reprise.Event(message(4, "bob", "two\nlines", 1)),
		}}},
		roomMsg{Room: &reprisev1.Room{Name: "ops"}, Position: reprise.Position{Room: "ops", Offset: 0}},
		replayed(message(5, "carol", "while you were away", 2)),
		replayed(message(6, "carol", "一二三 wide characters", 2)),
		caughtUpMsg{Room: "lobby"},
		inRoom(message(1, "bob", "disk is full", 3), "ops"),
		live(2),
		message(7, "a-very-long-user-name", "hello", 4),
		gapMsg{Room: "lobby", First: 8, Last: 19, Reason: reprise.GapRetention},
		message(20, "alice", "mine", 5),
	)
	s.typed("on its way")
	s.golden("screen")
}

func TestScreenNarrow(t *testing.T) {
	s := newScreen(t, 30, 10)
	s.send(message(1, "bob", "narrow terminals have no margin", 0), live(0))
	s.typed("right?")
	s.golden("narrow")
}

func TestPendingBecomesEvent(t *testing.T) {
	s := newScreen(t, 80, 12)
	s.typed("first")
	s.typed("second")
	first, second := <-s.outbox, <-s.outbox
	if first.text != "first" || second.text != "second" || first.clientID == second.clientID {
		t.Fatal("sent ", first, second)
	}
	s.shows("…            alice first")
	s.send(sentMsg{room: "lobby", clientID: first.clientID})
	s.shows("✓            alice first")
	e := message(1, "alice", "first", 0)
	e.ClientID = first.clientID
	s.send(e)
	if got := strings.Count(s.text(), "first"); got != 1 {
		t.Errorf("the message is shown %d times:\n%s", got, s.text())
	}
	s.send(sentMsg{room: "lobby", clientID: second.clientID, err: errors.New("reprise: too fast")})
	s.shows("not sent: too fast")
}

func TestFullOutboxKeepsTheInput(t *testing.T) {
	s := newScreen(t, 80, 12)
	for i := range cap(s.outbox) + 1 {
		s.typed(fmt.Sprint("message ", i))
	}
	s.shows("› message 2")
	s.shows("too many messages wait")
	if n := len(s.model.room("lobby").pending); n != cap(s.outbox) {
		t.Errorf("%d messages are shown as on their way", n)
	}
}

func TestP2_RewindAndGapAreShown(t *testing.T) {
	s := newScreen(t, 80, 20)
	s.send(message(1, "bob", "kept", 0), message(2, "bob", "lost", 1), message(3, "bob", "lost too", 2),
		rewindMsg{Room: "lobby", To: 1})
	s.showsNot("lost")
	s.shows("everything after 1 is forgotten")
	s.send(message(2, "bob", "another second", 3))
	s.shows("another second")
	s.send(gapMsg{Room: "lobby", First: 3, Last: 9000, Reason: reprise.GapReplayLimit, Recoverable: true})
	s.shows("3 to 9000 are not shown")
	// What is before a gap that can be fetched is fetched again with it.
	s.showsNot("kept")
	if cmd := s.press(tea.KeyPressMsg{Code: tea.KeyPgUp}); cmd == nil {
		t.Error("scrolling up does not fetch the gap")
	}
	s.send(historyMsg{room: "lobby", page: reprise.Page{Events: []reprise.Event{reprise.Event(message(9000, "bob", "fetched", 4))}}})
	s.shows("fetched")
	s.showsNot("not shown")
}

// TestHistoryAfterRewind has a page that was asked for before a rewind, and
// comes after it and after new events with the same offsets.
func TestHistoryAfterRewind(t *testing.T) {
	s := newScreen(t, 80, 20)
	s.send(
		roomMsg{Room: &reprisev1.Room{Name: "lobby"}, Position: reprise.Position{Room: "lobby", Offset: 3}},
		rewindMsg{Room: "lobby", To: 1},
		message(2, "bob", "new second", 3),
		historyMsg{room: "lobby", page: reprise.Page{Events: []reprise.Event{
			reprise.Event(message(1, "bob", "first", 0)), reprise.Event(message(2, "bob", "new second", 3)),
		}}},
	)
	if got := strings.Count(s.text(), "new second"); got != 1 {
		t.Errorf("an event is shown %d times:\n%s", got, s.text())
	}
	s.shows("first")
}

func TestConnectionIsShown(t *testing.T) {
	s := newScreen(t, 100, 10)
	for _, c := range []struct {
		state reprise.State
		want  string
	}{
		{reprise.State{Phase: reprise.Connecting}, "◌ connecting"},
		{reprise.State{Phase: reprise.Replaying, Replayed: 3, ToReplay: 12}, "◐ replaying 3 of 12"},
		{reprise.State{Phase: reprise.Live, Outcome: reprise.OutcomeNew}, "● connected · caught up "},
		{reprise.State{Phase: reprise.Live, Outcome: reprise.OutcomeExact, Replayed: 12}, "● connected · caught up · 12 replayed"},
		{reprise.State{Phase: reprise.Live, Outcome: reprise.OutcomeWithGaps, Replayed: 1, Gaps: 2, Rewinds: 3}, "1 replayed · 2 gaps · 3 rewinds"},
		{reprise.State{Phase: reprise.Live, Outcome: reprise.OutcomeRebuilt}, "session was rebuilt"},
		{reprise.State{Phase: reprise.Live, Outcome: reprise.OutcomeForked}, "session was forked"},
		{reprise.State{Phase: reprise.Waiting, RetryAt: time.Now().Add(2500 * time.Millisecond), Err: errors.New("reprise: refused")}, "○ reconnecting, retry in 3 s · refused"},
		{reprise.State{Phase: reprise.Closed, Err: reprise.ErrFenced}, "✗ not connected · another client has taken this session over"},
	} {
		s.send(stateMsg(c.state))
		s.shows(c.want)
	}
}

func TestReplayedAreMarked(t *testing.T) {
	s := newScreen(t, 80, 20)
	s.send(replayed(message(1, "bob", "one", 0)), replayed(message(2, "bob", "two", 0)), caughtUpMsg{Room: "lobby"})
	s.shows("2 new since you were here")
	s.send(message(3, "bob", "three", 0), replayed(message(4, "bob", "four", 0)), caughtUpMsg{})
	s.shows("1 new while disconnected")
}

func TestScrolling(t *testing.T) {
	s := newScreen(t, 80, 12)
	for i := range 30 {
		s.send(message(uint64(i+1), "bob", fmt.Sprintf("message %02d", i+1), i))
	}
	s.shows("message 30")
	s.press(tea.KeyPressMsg{Code: tea.KeyPgUp})
	s.showsNot("message 30")
	s.shows("↓ 8 below")
	before := strings.Split(s.text(), "\n")[1]
	s.send(message(31, "bob", "message 31", 31))
	if after := strings.Split(s.text(), "\n")[1]; after != before {
		t.Errorf("a new message moved what is being read from %q to %q", before, after)
	}
	s.press(tea.KeyPressMsg{Code: tea.KeyEscape})
	s.shows("message 31")
	for range 10 {
		s.press(tea.KeyPressMsg{Code: tea.KeyPgUp})
	}
	s.shows("message 01")
	s.press(tea.KeyPressMsg{Code: tea.KeyDown})
	s.press(tea.KeyPressMsg{Code: tea.KeyUp})
	s.shows("message 01")
}

func TestRooms(t *testing.T) {
	s := newScreen(t, 80, 16)
	s.send(inRoom(message(1, "bob", "disk is full", 0), "ops"))
	s.shows("ops 1")
	s.showsNot("disk is full")
	s.press(tea.KeyPressMsg{Code: tea.KeyTab})
	s.shows("disk is full")
	s.showsNot("ops 1")
	s.press(tea.KeyPressMsg{Code: tea.KeyTab})
	s.shows("lobby")
	s.showsNot("disk is full")
	s.send(roomClosedMsg{Room: "lobby", Reason: "LEFT", By: "alice", Offset: 2})
	s.shows("you are no longer in lobby")
	s.shows("disk is full")
	s.send(roomClosedMsg{Room: "ops"})
	s.shows("no room: /join one")
	s.typed("nobody hears this")
	if len(s.outbox) > 0 {
		t.Error("a message was sent to no room")
	}
}

func TestCommands(t *testing.T) {
	s := newScreen(t, 80, 24)
	s.typed("/help")
	s.shows("/join ROOM")
	s.typed("/nonsense")
	s.shows("there is no /nonsense")
	s.typed("/join")
	s.shows("/join needs the name")
	s.typed("/rooms")
	s.shows("your rooms: lobby")
	s.typed("//slash")
	if o := <-s.outbox; o.text != "/slash" {
		t.Errorf("sent %q", o.text)
	}
	for _, words := range []string{"/join ops", "/who", "/leave"} {
		if s.typed(words) == nil {
			t.Errorf("%s asks the server for nothing", words)
		}
	}
	if cmd := s.typed("/quit"); cmd == nil {
		t.Error("/quit does nothing")
	} else if _, ok := cmd().(tea.QuitMsg); !ok {
		t.Error("/quit does not quit")
	}
}

// TestTextIsText has somebody else try to drive the terminal.
func TestTextIsText(t *testing.T) {
	s := newScreen(t, 80, 12)
	s.send(message(1, "bob", "a\x1b[2Jb\x9bc\rd\u202ee", 0))
	s.shows("a\uFFFD[2Jb\uFFFDc\uFFFDd\uFFFDe")
}

func TestUnsent(t *testing.T) {
	s := newScreen(t, 80, 12)
	s.typed("hello")
	if err := s.model.unsent(); err == nil || !strings.Contains(err.Error(), "lobby: hello") {
		t.Error("a message without a receipt was not reported: ", err)
	}
	s.send(sentMsg{room: "lobby", clientID: (<-s.outbox).clientID})
	if err := s.model.unsent(); err != nil {
		t.Error(err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	r := newRoom("lobby")
	r.begin(0)
	for i := range maxEntries + 10 {
		r.add(reprise.Event(message(uint64(i+1), "bob", "x", 0)), false)
	}
	if len(r.entries) != maxEntries || r.oldest() != 11 || r.complete {
		t.Errorf("%d entries are held, from %d", len(r.entries), r.oldest())
	}
}

// TestLostRoom is what a person sees of a room that the server does not know
// any more, and of having no room at all.
func TestLostRoom(t *testing.T) {
	s := newScreen(t, 80, 24)
	s.send(message(1, "bob", "of the old log", 0))
	if cmd := s.send(roomClosedMsg{Room: "lobby"}); cmd == nil {
		t.Error("the room that the chat was started for is not joined again")
	}
	s.shows("the server does not know that you were in lobby")
	s.showsNot("of the old log")
	s.typed("while it is joined")
	if len(s.outbox) > 0 {
		t.Error("a message is sent to a room that is yet to be joined")
	}
	s.send(rejoinedMsg{room: "lobby"})
	if len(s.outbox) != 1 || (<-s.outbox).text != "while it is joined" {
		t.Error("what was entered while the room was joined is not sent")
	}
	s.send(message(1, "bob", "of the new log", 1))
	s.shows("of the new log")

	if cmd := s.send(roomClosedMsg{Room: "lobby", Reason: "LEFT", By: "alice", Offset: 3}); cmd != nil {
		t.Error("a room that was left is joined again")
	}
	s.shows("no room: /join one")
	s.shows("you are no longer in lobby")
	s.typed("anybody there?")
	s.shows("there is no room to say it in")
	if got := s.model.input.Value(); got != "anybody there?" {
		t.Errorf("what was typed has become %q", got)
	}
	s.model.input.Reset()
	s.typed("/nonsense")
	s.shows("there is no /nonsense")
	s.send(enterMsg{room: "lounge"})
	s.showsNot("there is no /nonsense")
}

// TestOlder asks on until something that was said comes.
func TestOlder(t *testing.T) {
	const log = 12_000
	var asked int
	list := func(said func(offset uint64) bool) func(context.Context, reprise.Range) (reprise.Page, error) {
		asked = 0
		return func(_ context.Context, r reprise.Range) (reprise.Page, error) {
			asked++
			from := max(int(r.Before)-r.Limit, 1)
			var p reprise.Page
			for o := uint64(from); o < r.Before; o++ {
				e := joined(o, "carol", 0)
				if said(o) {
					e = message(o, "bob", "hello", 0)
				}
				p.Events = append(p.Events, reprise.Event(e))
			}
			p.More = from > 1
			return p, nil
		}
	}
	for _, c := range []struct {
		name     string
		said     func(uint64) bool
		messages int
		asked    int
		more     bool
	}{
		{"talk", func(uint64) bool { return true }, historyPage, 1, true},
		{"talk before many joins", func(o uint64) bool { return o <= log-3000 }, 50, 4, true},
		{"joins only", func(uint64) bool { return false }, 0, historyPages, true},
	} {
		page, err := older(t.Context(), log+1, list(c.said))
		if err != nil {
			t.Fatal(err)
		}
		if got := messages(page.Events); got < min(c.messages, historyMessages) || asked != c.asked || page.More != c.more {
			t.Errorf("%s: %d messages after asking %d times, more %v", c.name, got, asked, page.More)
		}
		for i, e := range page.Events[1:] {
			if e.Offset != page.Events[i].Offset+1 {
				t.Fatalf("%s: %d comes after %d", c.name, e.Offset, page.Events[i].Offset)
			}
		}
		if last := page.Events[len(page.Events)-1].Offset; last != log {
			t.Errorf("%s: the newest is %d", c.name, last)
		}
	}
	if page, err := older(t.Context(), 31, list(func(uint64) bool { return false })); err != nil || page.More || len(page.Events) != 30 {
		t.Errorf("30 joins are %d events, more %v, %v", len(page.Events), page.More, err)
	}
}
