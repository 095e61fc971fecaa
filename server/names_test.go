package server_test

import (
	"context"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/store"
	"github.com/reprise-chat/reprise/server/internal/store/pebble"
)

// subjects is a Verifier that says what the token stands for.
type subjects map[string]string

func (s subjects) Verify(_ context.Context, token string) (server.Identity, error) {
	user, ok := s[strings.TrimPrefix(token, "dev:")]
	if !ok {
		return server.Identity{}, server.ErrTokenInvalid
	}
	return server.Identity{User: user}, nil
}

// TestVerifierSaysAnything: whatever a Verifier says, what is no name is
// refused at each door, and nothing of it is stored.
func TestVerifierSaysAnything(t *testing.T) {
	said := subjects{
		"empty": "", "nul": "a\x00b", "newline": "a\nb", "escape": "a\x1b[2J", "long": strings.Repeat("x", 5000),
		"invalid": "\xff", "space": "a b", "backwards": "a\u202eb", "decomposed": "jose\u0301",
		"provider": "auth0|abc", "mail": "alice@example.com", "flower": "花子",
	}
	n := serve(t, func(o *server.Options) { o.Verifier = said })
	for token, user := range said {
		ctx := as(t, token)
		_, err := n.JoinRoom(ctx, &reprisev1.JoinRoomRequest{Room: "lobby"})
		switch token {
		case "provider", "mail", "flower":
			if err != nil {
				t.Errorf("%q is refused: %v", user, err)
			}
			continue
		}
		refused(t, err, codes.Unauthenticated, "TOKEN_INVALID")
		stream, err := n.Open(ctx, &reprisev1.OpenRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		refused(t, err, codes.Unauthenticated, "TOKEN_INVALID")
	}
	out, err := n.ListMembers(as(t, "mail"), &reprisev1.ListMembersRequest{Room: "lobby"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := usersOf(out), []string{"alice@example.com", "auth0|abc", "花子"}; !slices.Equal(got, want) {
		t.Errorf("members %q, want %q", got, want)
	}
}

func usersOf(out *reprisev1.ListMembersResponse) (users []string) {
	for _, m := range out.GetMembers() {
		users = append(users, m.GetUser())
	}
	return users
}

// TestNamesOfAnyScript takes names that are no ASCII through all that a client
// does with them.
func TestNamesOfAnyScript(t *testing.T) {
	n := serve(t)
	users, room := []string{"josé", "花子", "Ωμέγα", "auth0|50%", "a/b"}, "広場|50"
	slices.Sort(users)
	encoded := url.PathEscape
	for _, user := range users {
		n.join(encoded(user), room)
		n.say(encoded(user), room, "from "+user)
	}
	s := n.open(encoded("花子"), &reprisev1.OpenRequest{History: 100}).caughtUp()
	s.hangUp()
	n.restart()
	head := n.say(encoded("josé"), room, "meanwhile").GetOffset()
	s = n.resume(encoded("花子"), s.again()).caughtUp()
	s.reach(room, head)
	var senders []string
	for _, e := range n.log(encoded("花子"), room) {
		if e.GetMessage() != nil && e.GetMessage().GetText() != "meanwhile" {
			senders = append(senders, e.GetSender())
		}
	}
	if !slices.Equal(senders, users) {
		t.Errorf("senders %q, want %q", senders, users)
	}
	if got := n.pages("花子", room, 2); !slices.Equal(got, users) {
		t.Errorf("members %q, want %q", got, users)
	}
}

// pages lists the members of a room in pages of size.
func (n *node) pages(user, room string, size int32) (users []string) {
	n.t.Helper()
	for token := ""; ; {
		out, err := n.ListMembers(as(n.t, url.PathEscape(user)), &reprisev1.ListMembersRequest{Room: room, PageSize: size, PageToken: token})
		if err != nil {
			n.t.Fatalf("ListMembers after %q: %v", users, err)
		}
		users = append(users, usersOf(out)...)
		if token = out.GetNextPageToken(); token == "" {
			return users
		}
	}
}

// TestPagesOverOldNames lists members that an earlier release let in, when the
// word of a Verifier was not checked.
func TestPagesOverOldNames(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	n.stop()
	odd := []string{"", "\x00", "a\nb", "a b", "\u202e", strings.Repeat("x", 5000), "alice\x00", "\xff\xfe"}
	addMembers(t, n.opts.Dir, "lobby", odd...)
	n.start()
	want := append(slices.Clone(odd), "alice")
	slices.Sort(want)
	want[len(want)-1] = "\ufffd" // what is not UTF-8 cannot be sent as it is
	for size := int32(1); size <= int32(len(want))+1; size++ {
		if got := n.pages("alice", "lobby", size); !slices.Equal(got, want) {
			t.Fatalf("in pages of %d: %q, want %q", size, got, want)
		}
	}
}

// addMembers writes memberships into a store that is closed, whatever the
// users are called.
func addMembers(t *testing.T, dir, room string, users ...string) {
	t.Helper()
	st, err := pebble.Open(dir, pebble.Options{Logger: slog.New(slog.DiscardHandler), Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	log, err := st.OpenLog(t.Context(), room)
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range users {
		head := log.State().Head
		element, err := event.Encode(&reprisev1.Event{Body: &reprisev1.Event_MemberChange{MemberChange: &reprisev1.MemberChange{
			Kind: reprisev1.MemberChange_KIND_JOINED, User: strings.ToValidUTF8(user, "?"),
		}}})
		if err != nil {
			t.Fatal(err)
		}
		event.Place(element, head+1, head)
		done := make(chan error, 1)
		log.Append(&store.Append{
			Expect: head, Events: []store.Event{{Encoded: element}},
			Members: []store.MemberChange{{User: user, Joined: true, Offset: head + 1, By: user}},
			Done:    func(err error) { done <- err },
		})
		select {
		case err = <-done:
		case <-time.After(patience):
			t.Fatal("the append takes too long")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
