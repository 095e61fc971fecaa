package command

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/reprise-chat/reprise/cmd/reprise/internal/line"
)

// texts are the messages of a tail.
func texts(t *testing.T, p person, room string, flags ...string) []string {
	t.Helper()
	var all []string
	for _, r := range objects[line.Record](t, p.ok("", append([]string{"tail", room, "--after", "0", "--json"}, flags...)...)) {
		if r.Type == "message" {
			all = append(all, r.Text)
		}
	}
	return all
}

func TestSendAndTail(t *testing.T) {
	h := serveIn(t, t.TempDir(), "")
	alice, bob := newPerson(t, "alice", h.GRPC), newPerson(t, "bob", h.GRPC)

	if r := alice.run("", "send", "lobby", "hello", "--no-join"); r.code != exitFailure || !strings.Contains(r.err, "rooms join lobby") {
		t.Errorf("a send without being a member: exit code %d\n%s", r.code, r.err)
	}
	first := objects[sent](t, alice.ok("", "send", "lobby", "hello", "--json", "--client-id", "c1"))[0]
	again := objects[sent](t, alice.ok("", "send", "lobby", "hello", "--json", "--client-id", "c1"))[0]
	if first.Room != "lobby" || first.Offset == 0 || first.Duplicate || !again.Duplicate ||
		again.Offset != first.Offset || !again.Time.Equal(first.Time) || again.ClientID != "c1" {
		t.Errorf("one client id, and the receipts %+v and %+v", first, again)
	}
	if out := alice.ok("", "send", "lobby", "hello", "--client-id", "c1"); out != fmt.Sprintf("was sent before: lobby %d\n", first.Offset) {
		t.Error(out)
	}
	if r := alice.run("", "send", "lobby", "something else", "--client-id", "c1"); r.code != exitFailure || !strings.Contains(r.err, "client_id") {
		t.Errorf("a client id for another text: exit code %d\n%s", r.code, r.err)
	}
	if out := alice.ok("from a\npipe\n", "send", "lobby"); out != fmt.Sprintf("sent: lobby %d\n", first.Offset+1) {
		t.Error(out)
	}
	if r := alice.run("", "send", "lobby", ""); r.code != exitFailure || !strings.Contains(r.err, "text") {
		t.Errorf("an empty text: exit code %d\n%s", r.code, r.err)
	}
	if got := texts(t, alice, "lobby"); !slices.Equal(got, []string{"hello", "from a\npipe"}) {
		t.Errorf("the room has %q", got)
	}

	if r := bob.run("", "tail", "lobby"); r.code != exitFailure || !strings.Contains(r.err, "rooms join lobby") {
		t.Errorf("a tail without being a member: exit code %d\n%s", r.code, r.err)
	}
	out := bob.ok("", "tail", "lobby", "--join", "--last", "2")
	if strings.Count(out, "\n") != 3 || !strings.Contains(out, "alice: from a\n") || !strings.HasSuffix(out, "* bob joined\n") {
		t.Errorf("the last two are\n%s", out)
	}
	if got := objects[line.Record](t, bob.ok("", "tail", "lobby", "--after", "0", "--limit", "1", "--json")); len(got) != 1 || got[0].Type != "created" {
		t.Errorf("the first event is %+v", got)
	}
	if out := bob.ok("", "tail", "lobby", "--last", "0"); out != "" {
		t.Errorf("none of what is there is %q", out)
	}
}

func TestTailFollows(t *testing.T) {
	dir := t.TempDir()
	h := serveIn(t, dir, "")
	alice := newPerson(t, "alice", h.GRPC)
	alice.ok("", "send", "lobby", "before")
	p := start(t, command(t, []string{"REPRISE_SERVER=" + h.GRPC}, "tail", "lobby", "--last", "1", "--follow"))
	if got := p.line(); !strings.HasSuffix(got, "alice: before") {
		t.Error(got)
	}
	alice.ok("", "send", "lobby", "live")
	if got := p.line(); !strings.HasSuffix(got, "alice: live") {
		t.Error(got)
	}
	h.signal(syscall.SIGKILL)
	h.end()
	serveIn(t, dir, h.GRPC)
	alice.ok("", "send", "lobby", "after the crash")
	if got := p.line(); !strings.HasSuffix(got, "alice: after the crash") {
		t.Error(got)
	}
	p.signal(syscall.SIGINT)
	if code := p.end(); code != exitOK {
		t.Error("exit code ", code)
	}
}

func TestRoomsMembersSessions(t *testing.T) {
	h := serveIn(t, t.TempDir(), "")
	alice, bob := newPerson(t, "alice", h.GRPC), newPerson(t, "bob", h.GRPC)
	if out := alice.ok("", "rooms"); !strings.Contains(out, "no room yet") {
		t.Error(out)
	}
	if out := alice.ok("", "rooms", "--json"); out != "" {
		t.Error(out)
	}
	if out := alice.ok("", "sessions"); !strings.Contains(out, "no sessions") {
		t.Error(out)
	}
	if out := alice.ok("", "rooms", "join", "lobby"); out != "joined: lobby, members: 1\n" {
		t.Error(out)
	}
	bob.ok("", "rooms", "join", "lobby", "--json")
	rooms := objects[room](t, alice.ok("", "rooms", "--json"))
	if len(rooms) != 1 || rooms[0].Name != "lobby" || rooms[0].Members != 2 || rooms[0].Creator != "alice" || rooms[0].Access != "open" {
		t.Errorf("%+v", rooms)
	}
	if out := alice.ok("", "rooms"); !strings.HasPrefix(out, "ROOM ") || !strings.Contains(out, "\nlobby ") {
		t.Error(out)
	}
	members := objects[member](t, alice.ok("", "members", "lobby", "--json"))
	if len(members) != 2 || members[0].User != "alice" || members[1].User != "bob" || members[1].Joined <= members[0].Joined {
		t.Errorf("%+v", members)
	}
	if out := bob.ok("", "rooms", "leave", "lobby"); out != "left: lobby\n" {
		t.Error(out)
	}
	if r := bob.run("", "members", "lobby"); r.code != exitFailure || !strings.Contains(r.err, "rooms join lobby") {
		t.Errorf("exit code %d\n%s", r.code, r.err)
	}

	alice.ok("hello\n", "chat", "lobby")
	sessions := objects[session](t, alice.ok("", "sessions", "--json"))
	if len(sessions) != 1 || sessions[0].Attached || sessions[0].Attach != 1 || sessions[0].Created.IsZero() {
		t.Fatalf("%+v", sessions)
	}
	if out := alice.ok("", "sessions", "end", sessions[0].ID); out != "ended: "+sessions[0].ID+"\n" {
		t.Error(out)
	}
	if r := alice.run("", "sessions", "end", sessions[0].ID); r.code != exitFailure || !strings.Contains(r.err, "sessions\n") {
		t.Errorf("exit code %d\n%s", r.code, r.err)
	}
}

func TestP7_PipedChatResumes(t *testing.T) {
	h := serveIn(t, t.TempDir(), "")
	alice, bob := newPerson(t, "alice", h.GRPC), newPerson(t, "bob", h.GRPC)
	out := alice.ok("one\ntwo\n", "chat", "lobby")
	if !strings.Contains(out, "alice: one\n") || !strings.HasSuffix(out, "alice: two\n") {
		t.Errorf("the chat printed\n%s", out)
	}
	bob.ok("", "send", "lobby", "while alice is away")
	got := objects[line.Record](t, alice.ok("three\n", "chat", "lobby", "--json"))
	var all []string
	for _, r := range got {
		all = append(all, r.Type+" "+r.Text)
	}
	if want := []string{"joined ", "message while alice is away", "message three"}; !slices.Equal(all, want) {
		t.Errorf("the chat that was opened again printed %q, want %q", all, want)
	}
}

// TestP4_PipedChatThroughACrash has messages sent while the server is killed
// and started again.
func TestP4_PipedChatThroughACrash(t *testing.T) {
	dir := t.TempDir()
	h := serveIn(t, dir, "")
	chat := command(t, []string{"REPRISE_SERVER=" + h.GRPC, "XDG_STATE_HOME=" + t.TempDir()}, "chat", "lobby", "--json")
	in, err := chat.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, chat)
	said := func() string {
		for {
			if r := objects[line.Record](t, p.line())[0]; r.Type == "message" {
				return r.Text
			}
		}
	}
	if _, err := fmt.Fprintln(in, "first"); err != nil {
		t.Fatal(err)
	}
	want, printed := []string{"first"}, []string{said()}
	for i := range 6 {
		text := fmt.Sprint("message ", i)
		want = append(want, text)
		if _, err := fmt.Fprintln(in, text); err != nil {
			t.Fatal(err)
		}
		if i%2 == 1 {
			h.signal(syscall.SIGKILL)
			h.end()
			h = serveIn(t, dir, h.GRPC)
		}
	}
	in.Close()
	for len(printed) < len(want) {
		printed = append(printed, said())
	}
	if code := p.end(); code != exitOK {
		t.Error("exit code ", code)
	}
	if !slices.Equal(printed, want) {
		t.Errorf("printed %q", printed)
	}
	if got := texts(t, newPerson(t, "alice", h.GRPC), "lobby"); !slices.Equal(got, want) {
		t.Errorf("the room has %q", got)
	}
}

// TestDoneButNotPrinted has standard output full: what was done is done.
func TestDoneButNotPrinted(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("needs /dev/full: ", err)
	}
	defer full.Close()
	dir, copies := t.TempDir(), t.TempDir()
	h := serveIn(t, dir, "")
	for _, args := range [][]string{
		{"rooms", "join", "lobby"}, {"send", "lobby", "it was sent"}, {"send", "lobby", "twice", "--json"}, {"rooms", "leave", "lobby"},
		{"backup", "--dir", dir, filepath.Join(copies, "one")}, {"backup", "--dir", dir, filepath.Join(copies, "two"), "--json"},
	} {
		cmd := command(t, []string{"REPRISE_SERVER=" + h.GRPC}, args...)
		var problems strings.Builder
		cmd.Stdout, cmd.Stderr = full, &problems
		if err := cmd.Run(); err != nil {
			t.Errorf("%v: %v\n%s", args, err, problems.String())
		}
		if !strings.Contains(problems.String(), "done, but it could not be printed") {
			t.Errorf("%v says %q", args, problems.String())
		}
	}
}

// TestPipedLinesThatCannotBeSent: each is refused by itself, what is before and
// after it is said, and the chat ends.
func TestPipedLinesThatCannotBeSent(t *testing.T) {
	h := serveIn(t, t.TempDir(), "")
	alice := newPerson(t, "alice", h.GRPC)
	for _, bad := range []string{"caf\xe9", strings.Repeat("x", 70<<10), strings.Repeat("x", 1<<20-1), strings.Repeat("x", 1<<20+1), strings.Repeat("x", 3<<20)} {
		before := len(texts(t, alice, "lobby", "--join"))
		r := alice.run("before\n"+bad+"\nafter\n", "chat", "lobby")
		if r.code != exitFailure || !strings.Contains(r.err, "not sent: ") || !strings.Contains(r.err, "1 of the lines were refused") {
			t.Errorf("exit code %d\n%s", r.code, r.err)
		}
		if got := texts(t, alice, "lobby"); len(got) != before+2 || got[before] != "before" || got[before+1] != "after" {
			t.Errorf("the room has %.200q", got)
		}
	}
	if r := alice.run("", "send", "lobby", "caf\xe9"); r.code != exitFailure || !strings.Contains(r.err, "UTF-8") {
		t.Errorf("exit code %d\n%s", r.code, r.err)
	}
}

// TestNames has people of any name talk, and those who can have none told so
// without a server.
func TestNames(t *testing.T) {
	h := serveIn(t, t.TempDir(), "")
	for _, name := range []string{"josé", "花子", "auth0|abc", "50%"} {
		p := newPerson(t, name, h.GRPC)
		p.ok("", "send", "café", "it is me")
		if out := p.ok("", "tail", "café"); !strings.Contains(out, name+": it is me") {
			t.Errorf("%s: %s", name, out)
		}
		if r := p.run("", "tail", "o'clock"); !strings.Contains(r.err, `rooms join 'o'\''clock'`) {
			t.Errorf("a command to copy is\n%s", r.err)
		}
	}
	for _, name := range []string{"a b", "caf\xe9", "jose\u0301", strings.Repeat("x", 129)} {
		p := newPerson(t, name, "127.0.0.1:1")
		for _, args := range [][]string{{"send", "lobby", "x"}, {"rooms"}, {"tail", "lobby"}, {"chat", "lobby"}} {
			if r := p.run("", args...); r.code != exitFailure || !strings.Contains(r.err, "--user") {
				t.Errorf("%q, %v: exit code %d\n%s", name, args, r.code, r.err)
			}
		}
	}
}

// TestBadValues has nobody read what strconv says.
func TestBadValues(t *testing.T) {
	alice := newPerson(t, "alice", "127.0.0.1:1")
	for _, c := range []struct{ args, want string }{
		{"tail lobby --last x", `--last "x" must be a whole number`},
		{"tail lobby --last -1", `--last "-1" must be a whole number`},
		{"tail lobby --after 99999999999999999999", `--after "99999999999999999999" is out of range`},
		{"serve --keep-age 5", `--keep-age "5" must be a duration with its unit`},
		{"serve --keep-age 9999999h", "of at most 290 years"},
		{"serve --trim-every 1ns", "--trim-every must be at least 10ms"},
		{"serve --keep-events many", `--keep-events "many" must be a whole number`},
		{"send lobby x --timeout soon", `--timeout "soon" must be a duration`},
		{"rooms --plaintext=perhaps", `--plaintext "perhaps" must be true or false`},
		{"serve --log-level loud", "--log-level"},
	} {
		r := alice.run("", strings.Fields(c.args)...)
		if r.code != exitUsage || !strings.Contains(r.err, c.want) || strings.Contains(r.err, "strconv") || strings.Contains(r.err, "time:") {
			t.Errorf("%s: exit code %d\n%s", c.args, r.code, r.err)
		}
	}
}
