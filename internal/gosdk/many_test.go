package gosdk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/server"
)

// A server takes 100 streams on a connection. A program that wants more, here
// as many Tails as a user may have beside Run, gets them, and does not wait
// without a word.
func TestManyStreamsOfOneClient(t *testing.T) {
	const tails = 100
	n := serve(t)
	c := newTalker(t, n, "lobby")
	ctx := withPatience(t)
	if _, err := c.Send(ctx, "lobby", "first"); err != nil {
		t.Fatal(err)
	}
	tailed, cancel := context.WithCancel(ctx)
	var tailing sync.WaitGroup
	defer tailing.Wait()
	defer cancel()
	l := newListener()
	for range tails {
		tailing.Go(func() {
			if err := c.Tail(tailed, "lobby", reprise.TailOptions{Last: 1, Follow: true}, l); err != nil {
				t.Error(err)
			}
		})
	}
	for range tails {
		l.expect(t, "first")
	}
	if _, err := c.Send(ctx, "lobby", "second"); err != nil {
		t.Fatal(err)
	}
	for range tails {
		l.expect(t, "second")
	}
	if _, err := c.GetRoom(ctx, "lobby"); err != nil {
		t.Error(err)
	}
}

// 200 clients of one user: those for whom there is no session left are told so.
func TestTooManySessionsOfOneUserAreTold(t *testing.T) {
	n := serve(t)
	const clients = 200
	ended := make(chan error, clients)
	live := make(chan struct{}, clients)
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	defer running.Wait()
	defer cancel()
	for range clients {
		cfg := config(n.addr, "ann")
		var once sync.Once
		cfg.OnState = func(s reprise.State) {
			if s.Phase == reprise.Live {
				once.Do(func() { live <- struct{}{} })
			}
		}
		c := newClient(t, cfg)
		running.Go(func() {
			if err := c.Run(ctx, discarding{}); err != nil {
				ended <- err
			}
		})
	}
	attached, told := 0, 0
	for attached+told < clients {
		select {
		case <-live:
			attached++
		case err := <-ended:
			if !errors.Is(err, reprise.ErrTooManySessions) {
				t.Fatalf("Run ended with %v", err)
			}
			told++
		case <-time.After(patience):
			t.Fatalf("of %d clients %d are attached, %d were told, and the others hear nothing", clients, attached, told)
		}
	}
	t.Logf("%d attached, %d told", attached, told)
	if attached == 0 || told == 0 {
		t.Errorf("%d attached, %d told", attached, told)
	}
}

// A user in 2,500 rooms: after a restart of the server everything is resumed
// exactly, also when the client has to name every position.
func TestManyRoomsResumeExactly(t *testing.T) {
	const rooms = 2500
	n := serve(t, func(o *server.Options) { o.Limits.RoomsPerUser = 5000 })
	setup := newClient(t, config(n.addr, "ann"))
	ctx := withPatience(t)
	var joining sync.WaitGroup
	queue := make(chan int)
	for range 16 {
		joining.Go(func() {
			for i := range queue {
				if _, err := setup.Join(ctx, fmt.Sprint("room-", i), 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range rooms {
		queue <- i
	}
	close(queue)
	joining.Wait()

	for _, forget := range []bool{false, true} { // the checkpoint
		store := reprise.NewMemoryStore()
		cfg := config(n.addr, "ann")
		cfg.Positions = store
		c := newClient(t, cfg)
		l := newListener()
		ended := run(t, c, l)
		until(t, "live", func() bool { return c.State().Phase == reprise.Live })
		if forget {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			<-ended
			saved, _ := store.Load(ctx)
			saved.Session.Checkpoint = ""
			if err := store.Save(ctx, reprise.Update{Session: &saved.Session}); err != nil {
				t.Fatal(err)
			}
		}
		n.stop()
		n.start(n.addr)
		if forget {
			c = newClient(t, cfg)
			run(t, c, l)
		}
		text := fmt.Sprint("after the restart ", forget)
		if _, err := setup.Send(ctx, "room-7", text); err != nil {
			t.Fatal(err)
		}
		l.expect(t, text)
		if s := c.State(); s.Outcome != reprise.OutcomeExact || s.Rooms != rooms {
			t.Errorf("resumed %s with %d rooms", s.Outcome, s.Rooms)
		}
		select {
		case g := <-l.gaps:
			t.Errorf("%v", g)
		default:
		}
	}
}
