package place

import (
	"os"
	"path/filepath"
	"strings"
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

// TestAnyName: every name that a user may have has a place of its own, within
// the directory.
func TestAnyName(t *testing.T) {
	dir := t.TempDir()
	seen := make(map[string]bool)
	for _, user := range []string{".", "..", "...", "a/b", "%2E", strings.Repeat("花", 42), strings.Repeat("花", 41) + "子", strings.Repeat("x", 128)} {
		s, err := Open(dir, "127.0.0.1:9090", user)
		if err != nil {
			t.Errorf("%q: %v", user, err)
			continue
		}
		defer s.Close()
		e := element(user)
		if seen[e] || strings.ContainsAny(e, `/\`) || e == "." || e == ".." {
			t.Errorf("%q is in %q", user, e)
		}
		seen[e] = true
	}
	inside, err := os.ReadDir(filepath.Join(dir, "127.0.0.1:9090"))
	if err != nil || len(inside) != len(seen) {
		t.Errorf("%d places are in the directory, and should be %d, %v", len(inside), len(seen), err)
	}
}
