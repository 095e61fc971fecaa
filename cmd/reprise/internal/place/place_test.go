package place

import (
	"path/filepath"
	"testing"

	reprise "github.com/reprise-chat/reprise/client"
)

func TestDir(t *testing.T) {
	for _, c := range []struct{ state, home, want string }{
		{"/state", "/home/alice", "/state/reprise"},
		{"", "/home/alice", "/home/alice/.local/state/reprise"},
		{"not/absolute", "/home/alice", "/home/alice/.local/state/reprise"},
		{"", "", ""},
	} {
		env := map[string]string{"XDG_STATE_HOME": c.state, "HOME": c.home}
		got, err := Dir(func(name string) string { return env[name] })
		if got != filepath.FromSlash(c.want) || (err != nil) != (c.want == "") {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}

// TestOpen has two chats at once, each of which finds its own place again, and
// nobody else's.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	const server, user = "127.0.0.1:9090", "../alice"
	mark := func(s *reprise.FileStore, id string) {
		t.Helper()
		if err := s.Save(t.Context(), reprise.Update{Session: &reprise.SessionKey{ID: id}}); err != nil {
			t.Fatal(err)
		}
	}
	open := func(user string) *reprise.FileStore {
		t.Helper()
		s, err := Open(dir, server, user)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	holds := func(s *reprise.FileStore, want string) {
		t.Helper()
		saved, err := s.Load(t.Context())
		if err != nil || saved.Session.ID != want {
			t.Errorf("the place is %q, %v; want %q", saved.Session.ID, err, want)
		}
	}
	first, second := open(user), open(user)
	mark(first, "s_1")
	mark(second, "s_2")
	other := open("bob")
	holds(other, "")
	for _, s := range []*reprise.FileStore{first, second, other} {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	first, second = open(user), open(user)
	defer first.Close()
	defer second.Close()
	holds(first, "s_1")
	holds(second, "s_2")
}

func TestOpenRefusesTooMany(t *testing.T) {
	dir := t.TempDir()
	for range maxChats {
		s, err := Open(dir, "127.0.0.1:9090", "alice")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
	if s, err := Open(dir, "127.0.0.1:9090", "alice"); err == nil {
		s.Close()
		t.Error("one more place was opened than there may be")
	}
}
