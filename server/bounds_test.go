package server_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

// atOnce makes so many calls of a user at once. One in impatient of them, if
// any, waits for a millisecond only: its outcome is unknown. All others succeed
// or are refused for that reason. It returns how many are known to have
// succeeded, and how many are not known.
func atOnce(t *testing.T, user string, calls, impatient int, reason string, call func(ctx context.Context, i int) error) (made, unknown int) {
	t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	begin := make(chan struct{})
	for i := range calls {
		ctx := as(t, user)
		wg.Go(func() {
			<-begin
			if impatient > 0 && i%impatient == 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Millisecond)
				defer cancel()
			}
			err := call(ctx, i)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				made++
			case status.Code(err) == codes.DeadlineExceeded:
				unknown++
			default:
				refused(t, err, codes.ResourceExhausted, reason)
			}
		})
	}
	close(begin)
	wg.Wait()
	return made, unknown
}

// wantAtOnce waits until as many have come to be as may: a call that nobody
// waited for may still be under way. Then it checks that there are no more, and
// that the answers told the truth.
func wantAtOnce(t *testing.T, have func() int, bound, made, unknown int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); have() < bound && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	if n := have(); n != bound || made > n || made+unknown < n {
		t.Errorf("%d came to be, not %d; %d were confirmed, and of %d it is not known", n, bound, made, unknown)
	}
}

// joined counts a user's rooms.
func (n *node) joined(user string) int {
	n.t.Helper()
	out, err := n.ListRooms(as(n.t, user), &reprisev1.ListRoomsRequest{PageSize: 1000})
	if err != nil {
		n.t.Fatal(err)
	}
	return len(out.GetRooms())
}

// TestRoomsOfAUserAtOnce: whoever joins and makes many rooms at once gets as
// many as one may have, and so does one who goes away before the answers.
func TestRoomsOfAUserAtOnce(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.Limits.RoomsPerUser = 5 })
	for i := range 20 {
		n.join(fmt.Sprint("owner", i/5), fmt.Sprint("old", i))
	}
	for round, impatient := range []int{0, 0, 2, 3} {
		user := fmt.Sprint("alice", round)
		made, unknown := atOnce(t, user, 40, impatient, "TOO_MANY_ROOMS", func(ctx context.Context, i int) error {
			var err error
			switch name := fmt.Sprint(user, "-", i); {
			case i%4 == 0:
				_, err = n.CreateRoom(ctx, &reprisev1.CreateRoomRequest{Room: name})
			case i < 20:
				_, err = n.JoinRoom(ctx, &reprisev1.JoinRoomRequest{Room: fmt.Sprint("old", i)})
			default:
				_, err = n.JoinRoom(ctx, &reprisev1.JoinRoomRequest{Room: name})
			}
			return err
		})
		wantAtOnce(t, func() int { return n.joined(user) }, 5, made, unknown)
	}
}

// TestRoomsComeAndGoAtOnce: a room that was left makes place for another one,
// however much else is under way.
func TestRoomsComeAndGoAtOnce(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.Limits.RoomsPerUser = 8 })
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				name := fmt.Sprintf("room%d-%d", i, j)
				if err := n.tryJoin("alice", name); err != nil {
					t.Errorf("with a place that was made: %v", err)
					return
				}
				if _, err := n.LeaveRoom(as(t, "alice"), &reprisev1.LeaveRoomRequest{Room: name}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestInvitationsAtOnce: one who invites another to many rooms at once, by
// InviteMember and by CreateRoom, makes as many as are allowed.
func TestInvitationsAtOnce(t *testing.T) {
	n := serve(t)
	const rooms = 90
	for i := range rooms {
		n.create("mallory", fmt.Sprint("room", i), private)
	}
	for round, impatient := range []int{0, 3} {
		bob := fmt.Sprint("bob", round)
		made, unknown := atOnce(t, "mallory", 150, impatient, "TOO_MANY_INVITATIONS", func(ctx context.Context, i int) error {
			if i < rooms {
				_, err := n.InviteMember(ctx, &reprisev1.InviteMemberRequest{Room: fmt.Sprint("room", i), User: bob})
				return err
			}
			_, err := n.CreateRoom(ctx, &reprisev1.CreateRoomRequest{
				Room: fmt.Sprint(bob, "-", i), Access: private, Members: []string{bob, fmt.Sprint("other", i), bob},
			})
			return err
		})
		wantAtOnce(t, func() int { return len(n.invitedTo(bob, 1000)) }, 100, made, unknown)
	}
	n.join("bob0", n.invitedTo("bob0", 1)[0])
	n.create("mallory", "after", private, "bob0")
	_, err := n.CreateRoom(as(t, "mallory"), &reprisev1.CreateRoomRequest{Room: "more", Members: []string{"bob0"}})
	refused(t, err, codes.ResourceExhausted, "TOO_MANY_INVITATIONS")
}

// TestDirectAddAtOnce: several who add a user at once, while it joins rooms
// itself, never give it more rooms than one may have.
func TestDirectAddAtOnce(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.DirectAdd, o.Limits.RoomsPerUser = true, 12 })
	const inviters = 6
	for i := range inviters * 5 {
		n.create(fmt.Sprint("inviter", i%inviters), fmt.Sprint("room", i), private)
	}
	for round := range 3 {
		bob := fmt.Sprint("bob", round)
		var wg sync.WaitGroup
		for u := range inviters {
			wg.Go(func() {
				atOnce(t, fmt.Sprint("inviter", u), 6, 3, "", func(ctx context.Context, i int) error {
					var err error
					if i < 5 {
						_, err = n.InviteMember(ctx, &reprisev1.InviteMemberRequest{Room: fmt.Sprint("room", i*inviters+u), User: bob})
					} else {
						_, err = n.CreateRoom(ctx, &reprisev1.CreateRoomRequest{Room: fmt.Sprint("made", round, "-", u), Members: []string{"carol", bob}})
					}
					return err
				})
			})
		}
		wg.Go(func() {
			atOnce(t, bob, 20, 4, "TOO_MANY_ROOMS", func(ctx context.Context, i int) error {
				_, err := n.JoinRoom(ctx, &reprisev1.JoinRoomRequest{Room: fmt.Sprint(bob, "-", i)})
				return err
			})
		})
		wg.Wait()
		wantAtOnce(t, func() int { return n.joined(bob) }, 12, 0, 12)
	}
}
