package server_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

const private = reprisev1.RoomAccess_ROOM_ACCESS_PRIVATE

func (n *node) create(user, room string, access reprisev1.RoomAccess, members ...string) {
	n.t.Helper()
	_, err := n.CreateRoom(as(n.t, user), &reprisev1.CreateRoomRequest{Room: room, Access: access, Members: members})
	if err != nil {
		n.t.Fatalf("%s creates %s: %v", user, room, err)
	}
}

func (n *node) tryJoin(user, room string) error {
	n.t.Helper()
	_, err := n.JoinRoom(as(n.t, user), &reprisev1.JoinRoomRequest{Room: room})
	return err
}

func (n *node) invite(user, room, guest string) (*reprisev1.InviteMemberResponse, error) {
	n.t.Helper()
	return n.InviteMember(as(n.t, user), &reprisev1.InviteMemberRequest{Room: room, User: guest})
}

func (n *node) mustInvite(user, room, guest string) *reprisev1.InviteMemberResponse {
	n.t.Helper()
	out, err := n.invite(user, room, guest)
	if err != nil {
		n.t.Fatalf("%s invites %s to %s: %v", user, guest, room, err)
	}
	return out
}

// invitedTo lists a user's invitations in pages.
func (n *node) invitedTo(user string, size int32) (rooms []string) {
	n.t.Helper()
	for token := ""; ; {
		out, err := n.ListInvitations(as(n.t, user), &reprisev1.ListInvitationsRequest{PageSize: size, PageToken: token})
		if err != nil {
			n.t.Fatal(err)
		}
		for _, i := range out.GetInvitations() {
			rooms = append(rooms, i.GetRoom())
			if i.GetBy() == "" || i.GetInviteTime().AsTime().Before(time.Now().Add(-time.Hour)) {
				n.t.Errorf("invitation %v", i)
			}
		}
		if token = out.GetNextPageToken(); token == "" {
			return rooms
		}
	}
}

// TestInvitations goes through the life of a private room: who is invited may
// come, who left may be invited again, the creator may come back, and who is not
// invited may not, whatever was before.
func TestInvitations(t *testing.T) {
	n := serve(t)
	n.create("alice", "den", private, "bob", "carol", "alice", "bob")
	n.create("alice", "attic", private, "bob")
	if got := n.invitedTo("bob", 1); !slices.Equal(got, []string{"attic", "den"}) {
		t.Errorf("bob is invited to %q", got)
	}
	if r := n.room("alice", "den"); r.GetMembers() != 1 {
		t.Errorf("before anybody joins: %v", r)
	}
	_, err := n.GetRoom(as(t, "bob"), &reprisev1.GetRoomRequest{Room: "den"})
	refused(t, err, codes.NotFound, "ROOM_NOT_FOUND") // an invitation is no membership
	_, err = n.invite("bob", "den", "eve")
	refused(t, err, codes.NotFound, "ROOM_NOT_FOUND")

	n.restart()
	n.join("bob", "den")
	n.join("carol", "den")
	if got := n.invitedTo("bob", 100); !slices.Equal(got, []string{"attic"}) {
		t.Errorf("bob has joined, and is invited to %q", got)
	}
	_, err = n.invite("bob", "den", "eve")
	refused(t, err, codes.PermissionDenied, "INVITE_REFUSED")
	if out := n.mustInvite("alice", "den", "bob"); !out.GetAlready() || !out.GetJoined() || out.GetOffset() != 0 {
		t.Errorf("inviting a member: %v", out)
	}
	n.leave("bob", "den")
	refused(t, n.tryJoin("bob", "den"), codes.AlreadyExists, "ROOM_EXISTS") // it was used up
	first := n.mustInvite("alice", "den", "bob")
	if first.GetOffset() == 0 || first.GetIncarnation() == "" || first.GetJoined() || first.GetAlready() {
		t.Errorf("invited: %v", first)
	}
	if again := n.mustInvite("alice", "den", "bob"); !again.GetAlready() || again.GetJoined() || again.GetOffset() != 0 {
		t.Errorf("invited again: %v", again)
	}
	n.join("bob", "den")
	n.leave("alice", "den")
	n.join("alice", "den") // hers
	n.mustInvite("alice", "den", "dave")
	n.join("dave", "den")

	n.join("alice", "square")
	n.join("bob", "square")
	n.mustInvite("bob", "square", "eve") // an open room's member
	var kinds []string
	for _, e := range n.log("alice", "square") {
		if m := e.GetMemberChange(); m != nil {
			kinds = append(kinds, fmt.Sprint(e.GetSender(), " ", m.GetKind(), " ", m.GetUser()))
		}
	}
	if want := "bob KIND_INVITED eve"; kinds[len(kinds)-1] != want {
		t.Errorf("the log says %q, want %q at the end", kinds, want)
	}
}

// TestStrangerIsToldOfNoRoom: to a stranger a private room is a name that is
// taken, like that of an open room, and where joining makes no rooms it is
// nothing at all (R2, R30).
func TestStrangerIsToldOfNoRoom(t *testing.T) {
	same := func(what string, a, b error) {
		t.Helper()
		if !proto.Equal(status.Convert(a).Proto(), status.Convert(b).Proto()) {
			t.Errorf("%s: %v, and %v", what, a, b)
		}
	}
	n := serve(t)
	n.create("alice", "den", private)
	n.create("alice", "square", reprisev1.RoomAccess_ROOM_ACCESS_OPEN)
	create := func(n *node, room string) error {
		_, err := n.CreateRoom(as(t, "eve"), &reprisev1.CreateRoomRequest{Room: room})
		return err
	}
	refused(t, create(n, "den"), codes.AlreadyExists, "ROOM_EXISTS")
	same("created", create(n, "den"), create(n, "square"))
	same("created and joined", create(n, "den"), n.tryJoin("eve", "den"))

	n = serve(t, func(o *server.Options) { o.RefuseCreateOnJoin = true })
	n.create("alice", "den", private)
	refused(t, n.tryJoin("eve", "den"), codes.NotFound, "ROOM_NOT_FOUND")
	same("joined", n.tryJoin("eve", "den"), n.tryJoin("eve", "nothing"))
	n.mustInvite("alice", "den", "eve")
	n.join("eve", "den")
}

// TestVictimIsNotLockedOut: whoever invites somebody to thousands of rooms has
// the giver's limits against it, and the victim joins, creates and attaches as
// ever.
func TestVictimIsNotLockedOut(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.Limits.RoomsPerUser = 50 })
	n.join("victim", "hers")
	s := n.open("victim", &reprisev1.OpenRequest{}).caughtUp()
	bytes, frames := s.bytes, s.frames
	live := n.open("victim", &reprisev1.OpenRequest{}).caughtUp()

	invited := 0
	ctx := as(t, "mallory")
	for i := range 3000 {
		room := fmt.Sprint("trap", i)
		_, err := n.CreateRoom(ctx, &reprisev1.CreateRoomRequest{Room: room, Access: private, Members: []string{"victim"}})
		if err != nil {
			refused(t, err, codes.ResourceExhausted, "TOO_MANY_INVITATIONS")
			if retryOf(err) != 0 {
				t.Fatal("waiting does not cure it, and it says when to come again")
			}
			continue
		}
		invited++
		if _, err := n.LeaveRoom(ctx, &reprisev1.LeaveRoomRequest{Room: room}); err != nil {
			t.Fatal(err)
		}
	}
	if invited != 100 || len(n.invitedTo("victim", 1000)) != 100 {
		t.Errorf("%d invitations were made, and %d are open", invited, len(n.invitedTo("victim", 1000)))
	}
	for i := range 40 {
		n.join("victim", fmt.Sprint("joined", i))
		n.leave("victim", fmt.Sprint("joined", i))
	}
	n.create("victim", "created", private)
	n.leave("victim", "created")
	s = n.open("victim", &reprisev1.OpenRequest{}).caughtUp()
	if s.frames != frames || s.bytes > bytes+8 || s.welcome.GetRooms() != 1 {
		t.Errorf("an attach has %d frames and %d bytes, and had %d and %d", s.frames, s.bytes, frames, bytes)
	}
	head := n.say("victim", "hers", "still here").GetOffset()
	live.reach("hers", head) // and a live stream has not been told of any of it
	for name := range live.rooms {
		if len(name) > 4 && name[:4] == "trap" {
			t.Fatalf("the live stream was told of %s", name)
		}
	}
	n.join("victim", "trap0") // what was meant well is there
}

// TestInvitationsOfARoomAreBounded has a giver who invites everybody.
func TestInvitationsOfARoomAreBounded(t *testing.T) {
	n := serve(t)
	n.create("alice", "den", private)
	ctx := as(t, "alice")
	for i := range 1000 {
		if _, err := n.InviteMember(ctx, &reprisev1.InviteMemberRequest{Room: "den", User: fmt.Sprint("guest", i)}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := n.invite("alice", "den", "onemore")
	refused(t, err, codes.ResourceExhausted, "TOO_MANY_INVITATIONS")
	n.join("guest7", "den")
	n.mustInvite("alice", "den", "onemore")
	n.restart()
	_, err = n.invite("alice", "den", "another")
	refused(t, err, codes.ResourceExhausted, "TOO_MANY_INVITATIONS")
}

// TestInvitationsAreShared has one member of an open room invite everybody it
// can, many at once and not waiting for all of them, and then another invite.
func TestInvitationsAreShared(t *testing.T) {
	n := serve(t)
	n.join("mallory", "square")
	n.join("alice", "square")
	var wg sync.WaitGroup
	var made atomic.Int32
	for i := range 8 {
		wg.Go(func() {
			for j := range 25 {
				ctx, cancel := as(t, "mallory"), func() {}
				if j%5 == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Millisecond)
				}
				_, err := n.InviteMember(ctx, &reprisev1.InviteMemberRequest{Room: "square", User: fmt.Sprintf("guest%d-%d", i, j)})
				if cancel(); err == nil {
					made.Add(1)
				} else if status.Code(err) != codes.DeadlineExceeded && reasonOf(err) != "TOO_MANY_INVITATIONS" {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	_, err := n.invite("mallory", "square", "onemore")
	refused(t, err, codes.ResourceExhausted, "TOO_MANY_INVITATIONS")
	var invited []string
	for _, e := range n.log("alice", "square") {
		if c := e.GetMemberChange(); c.GetKind() == reprisev1.MemberChange_KIND_INVITED {
			invited = append(invited, c.GetUser())
		}
	}
	if len(invited) != 100 || int(made.Load()) > len(invited) {
		t.Fatalf("%d invitations, of which %d were confirmed", len(invited), made.Load())
	}
	n.mustInvite("alice", "square", "bob")
	n.join(invited[7], "square")
	n.restart()
	_, err = n.invite("mallory", "square", "onemore")
	if _, again := n.invite("mallory", "square", "another"); err != nil || again == nil {
		t.Errorf("after one was used: %v; and then: %v", err, again)
	}
}

// TestDirectAdd: where the policy is to add members directly they are members
// at once, but nobody has more rooms than one may have by that.
func TestDirectAdd(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.DirectAdd, o.Limits.RoomsPerUser = true, 3 })
	s := n.open("bob", &reprisev1.OpenRequest{}).caughtUp()
	n.create("alice", "den", private, "bob")
	n.say("alice", "den", "welcome")
	s.reach("den", 4)
	n.join("alice", "square")
	if out := n.mustInvite("alice", "square", "bob"); !out.GetJoined() || out.GetAlready() {
		t.Errorf("added: %v", out)
	}
	n.join("bob", "third")
	n.create("alice", "fourth", private, "bob")
	if out := n.room("alice", "fourth"); out.GetMembers() != 1 {
		t.Errorf("bob is in a fourth room: %v", out)
	}
	if got := n.invitedTo("bob", 10); !slices.Equal(got, []string{"fourth"}) {
		t.Errorf("bob is invited to %q", got)
	}
}

// TestInvitationsGoWithTheRoom: what invites to a room that is removed invites
// to no other one of its name.
func TestInvitationsGoWithTheRoom(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.EmptyRooms = 20 * time.Millisecond })
	n.create("alice", "den", private, "bob")
	n.leave("alice", "den")
	n.remade("carol", "den")
	if got := n.invitedTo("bob", 10); len(got) != 0 {
		t.Errorf("bob is invited to %q", got)
	}
	n.leave("carol", "den")
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		_, err := n.CreateRoom(as(t, "carol"), &reprisev1.CreateRoomRequest{Room: "den", Access: private})
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	refused(t, n.tryJoin("bob", "den"), codes.AlreadyExists, "ROOM_EXISTS")
	refused(t, n.tryJoin("alice", "den"), codes.AlreadyExists, "ROOM_EXISTS") // who made the other one
}
