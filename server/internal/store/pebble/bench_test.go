package pebble

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	db "github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// element returns an event of about 128 bytes.
func element(offset uint64, sender, clientID string) []byte {
	e, err := event.Encode(&reprisev1.Event{
		Time:     timestamppb.New(time.Unix(1_700_000_000, 0)),
		Sender:   sender,
		ClientId: clientID,
		Body:     &reprisev1.Event_Message{Message: &reprisev1.Message{Text: "a message of the length that people write in a chat"}},
	})
	must(err)
	event.Place(e, offset, offset-1)
	return e
}

func openBench(b *testing.B, rooms int) (*Store, []store.Log) {
	b.Helper()
	s, err := Open(b.TempDir(), Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	logs := make([]store.Log, rooms)
	var wg sync.WaitGroup
	for i := range logs {
		name := fmt.Sprintf("room-%04d", i)
		if logs[i], err = s.OpenLog(b.Context(), name); err != nil {
			b.Fatal(err)
		}
		wg.Add(1)
		err := logs[i].Append(&store.Append{
			Create: &store.Meta{Name: name},
			Events: []store.Event{{Encoded: element(1, "u", "")}},
			Done: func(err error) {
				if err != nil {
					b.Error(err)
				}
				wg.Done()
			},
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
	return s, logs
}

// BenchmarkGroupCommit has publishers that each wait for one event to be
// durable before they send the next, over 1,000 rooms.
func BenchmarkGroupCommit(b *testing.B) {
	for _, publishers := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("publishers=%d", publishers), func(b *testing.B) {
			for _, dedupe := range []bool{false, true} {
				b.Run(fmt.Sprintf("client_id=%t", dedupe), func(b *testing.B) { benchCommit(b, publishers, dedupe) })
			}
		})
	}
}

func benchCommit(b *testing.B, publishers int, dedupe bool) {
	b.Helper()
	const rooms = 1000
	_, logs := openBench(b, rooms)
	var next atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	start := time.Now()
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			done := make(chan error, 1)
			heads := make(map[int]uint64)
			// A publisher has rooms of its own, so that it knows their heads.
			for i := p; next.Add(1) <= int64(b.N); i = p + (i-p+publishers)%max(1, (rooms-p+publishers-1)/publishers*publishers) {
				head := max(1, heads[i])
				e := store.Event{Encoded: element(head+1, "user", "")}
				if dedupe {
					e.Sender, e.ClientID = "user", fmt.Sprintf("%016x%08x", p, head)
				}
				err := logs[i].Append(&store.Append{Expect: head, Events: []store.Event{e}, Done: func(err error) { done <- err }})
				if err == nil {
					err = <-done
				}
				if err != nil {
					b.Error(err)
					return
				}
				heads[i] = head + 1
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "events/s")
}

// BenchmarkRead replays 100 events of one room after another.
func BenchmarkRead(b *testing.B) {
	const rooms, events = 1000, 100
	_, logs := openBench(b, rooms)
	var wg sync.WaitGroup
	for _, l := range logs {
		a := &store.Append{Expect: 1, Done: func(error) { wg.Done() }}
		for o := range uint64(events) {
			a.Events = append(a.Events, store.Event{Encoded: element(o+2, "user", "")})
		}
		wg.Add(1)
		if err := l.Append(a); err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
	buf := make([]byte, 0, 64<<10)
	b.ReportAllocs()
	b.ResetTimer()
	start := time.Now()
	for i := range b.N {
		p, err := logs[i%rooms].Read(context.Background(), 1, 1+events, 1<<20, buf[:0])
		if err != nil || p.Last != 1+events {
			b.Fatal(p.Last, err)
		}
	}
	b.ReportMetric(float64(b.N)*events/time.Since(start).Seconds(), "events/s")
}

// BenchmarkBarePebble is what BenchmarkGroupCommit is measured against: the
// same keys and sizes, put by one goroutine into one synced batch for all that
// wait, and nothing else.
func BenchmarkBarePebble(b *testing.B) {
	for _, publishers := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("publishers=%d", publishers), func(b *testing.B) { benchBare(b, publishers) })
	}
}

func benchBare(b *testing.B, publishers int) {
	b.Helper()
	s := mustOpen(b, b.TempDir(), options(b)) // for its options; its committer idles
	defer mustClose(b, s)
	type publish struct {
		room, offset uint64
		value        []byte
		done         chan struct{}
	}
	queue := make(chan publish, publishers)
	var committer, all sync.WaitGroup
	committer.Go(func() {
		for p := range queue {
			waiting := []publish{p}
			for n := len(queue); n > 0; n-- {
				waiting = append(waiting, <-queue)
			}
			batch := s.db.NewBatch()
			for _, p := range waiting {
				must(batch.Set(eventKey(p.room, p.offset), p.value, nil))
			}
			must(batch.Commit(db.Sync))
			must(batch.Close())
			for _, p := range waiting {
				p.done <- struct{}{}
			}
		}
	})
	var next atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	start := time.Now()
	for p := range publishers {
		all.Go(func() {
			done := make(chan struct{}, 1)
			for o := uint64(1); next.Add(1) <= int64(b.N); o++ {
				queue <- publish{uint64(p), o, element(o, "user", ""), done}
				<-done
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "events/s")
	close(queue)
	committer.Wait()
}
