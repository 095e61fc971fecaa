package room_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/room"
)

// message is a publish as a chat has them, under a client id of its own.
func message(id uint64) room.Publish {
	return room.Publish{Event: &reprisev1.Event{
		Time: timestamppb.Now(), Sender: "alice", ClientId: fmt.Sprintf("client-id-%012d", id),
		Body: &reprisev1.Event_Message{Message: &reprisev1.Message{Text: "a message of the length that people write in a chat"}},
	}}
}

// TestPublishAllocations bounds what one publish costs the garbage collector,
// from the decoded event to its receipt, engine included.
func TestPublishAllocations(t *testing.T) {
	r := acquire(t, hub(t, room.Options{}), "lobby")
	if _, err := r.Join(t.Context(), "alice", room.Checks{}); err != nil {
		t.Fatal(err)
	}
	// Many at once, as a busy server has them: one group of the engine.
	const batch = 500
	var id uint64
	perBatch := testing.AllocsPerRun(20, func() {
		var wg sync.WaitGroup
		wg.Add(batch)
		for range batch {
			id++
			r.Publish(context.Background(), message(id), func(_ room.Receipt, err error) {
				if err != nil {
					t.Error(err)
				}
				wg.Done()
			})
		}
		wg.Wait()
	})
	const most = 22
	if got := perBatch / batch; got > most {
		t.Errorf("%.1f allocations a publish, more than %v", got, most)
	} else {
		t.Logf("%.1f allocations a publish", got)
	}
}

// BenchmarkPublish has publishers that each wait for their event to be
// durable, over 1,000 rooms, on a file system in memory: what is left is the
// work of the server and the engine.
func BenchmarkPublish(b *testing.B) {
	for _, publishers := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("publishers=%d", publishers), func(b *testing.B) { benchPublish(b, publishers) })
	}
}

func benchPublish(b *testing.B, publishers int) {
	b.Helper()
	h := hub(b, room.Options{})
	rooms := make([]*room.Room, 1000)
	for i := range rooms {
		rooms[i] = acquire(b, h, fmt.Sprintf("room-%04d", i))
		if _, err := rooms[i].Join(b.Context(), "alice", room.Checks{}); err != nil {
			b.Fatal(err)
		}
	}
	var next atomic.Uint64
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range publishers {
		wg.Go(func() {
			done := make(chan error, 1)
			for id := next.Add(1); id <= uint64(b.N); id = next.Add(1) {
				rooms[id%uint64(len(rooms))].Publish(context.Background(), message(id), func(_ room.Receipt, err error) { done <- err })
				if err := <-done; err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
