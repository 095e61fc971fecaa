package conversation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

const room = "talk"

// TestConversation proves P1 to P4, P7, P8 and P12 for all kinds of client at
// once. REPRISE_CONVERSATION is the number of kills, at least 20.
func TestConversation(t *testing.T) {
	setting := os.Getenv("REPRISE_CONVERSATION")
	if setting == "" {
		t.Skip("needs grpcurl and Chromium: `make test-conversation` runs it")
	}
	kills, _ := strconv.Atoi(setting)
	kills = max(kills, 20)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	server := newProcess(t)
	server.start()
	proxies := []*proxy{
		newProxy(t, "127.0.0.1:0", server.grpc),
		newProxy(t, "127.0.0.1:0", server.grpc),
		newProxy(t, "127.0.0.1:"+port(server.http), server.http),
	}
	g := newGopher(t, proxies[0].addr(), room)
	c := newCurl(t, proxies[1].addr(), room)
	p := newPage(t, "http://"+proxies[2].addr(), room)

	var told sent
	talk := newTalk(t, &told, map[string]func(context.Context, string) error{
		"gopher":  func(ctx context.Context, text string) error { return g.send(ctx, room, text) },
		"grpcurl": func(ctx context.Context, text string) error { return c.send(ctx, room, text) },
	})
	typed := 0
	for kill := range kills {
		typed += typeInto(t, p, typed)
		pause(random, 300)
		proxies[random.IntN(len(proxies))].cut()
		pause(random, 300)
		server.kill()
		// What its person does to the page meanwhile. A reload ends when the
		// server is back.
		meanwhile := func() error { return nil }
		switch kill % 5 {
		case 1:
			meanwhile = func() error { return p.do(nil, "reload", nil) }
		case 3:
			toggle(t, p)
			meanwhile = func() error { time.Sleep(200 * time.Millisecond); return p.do(nil, "toggle", nil) }
		}
		done := make(chan error, 1)
		go func() { done <- meanwhile() }()
		time.Sleep(100 * time.Millisecond)
		server.start()
		if err := <-done; err != nil {
			t.Error(err)
		}
		pause(random, 600)
	}
	typed += typeInto(t, p, typed)
	talk.stop()
	t.Logf("%d kills; %d sends acknowledged to gopher and grpcurl, %d typed into the page", kills, len(told.texts), typed)

	finish(t, server, g, c, p, &told, typed)
}

// finish waits until everybody has heard everything and compares.
func finish(t *testing.T, server *process, g *gopher, c *curl, p *page, told *sent, typed int) {
	t.Helper()
	var last shown
	eventually(t, time.Minute, "the page has sent everything and is live", func() bool {
		var err error
		if last, err = p.shows(); err != nil {
			t.Fatal(err)
		}
		return last.State == "live" && len(last.Pending) == 0
	})
	for i := range typed {
		told.acknowledged(pageText(i))
	}
	log := storedLog(t, server)
	head := log[len(log)-1].offset
	eventually(t, time.Minute, "gopher has heard everything", func() bool { return g.last() == head })
	eventually(t, time.Minute, "grpcurl has heard everything", func() bool { return c.last() == head })
	eventually(t, time.Minute, "the page has heard everything", func() bool {
		var err error
		if last, err = p.shows(); err != nil {
			t.Fatal(err)
		}
		return last.heard().last() == head
	})
	told.check(t, log)
	g.check(t, log)
	c.check(t, log)
	// The page does not name the sender of anything but messages.
	plain := slices.Clone(log)
	for i := range plain {
		if plain[i].text == "" {
			plain[i].sender = ""
		}
	}
	last.heard().check(t, plain)
	replayed := 0
	for _, e := range last.Entries {
		if e.Replayed {
			replayed++
		}
	}
	t.Logf("the log has %d events; the page marks %d as replayed; duplicates dropped by the SDK: %d", len(log), replayed, g.client.State().Duplicates)
}

// talk is clients that send all the time.
type talk struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func newTalk(t *testing.T, told *sent, speakers map[string]func(context.Context, string) error) *talk {
	over := make(chan struct{})
	var once sync.Once
	k := &talk{cancel: func() { once.Do(func() { close(over) }) }}
	for who, send := range speakers {
		k.done.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				case <-time.After(20 * time.Millisecond):
				}
				text := fmt.Sprintf("%s %d", who, i)
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				err := send(ctx, text)
				cancel()
				if err != nil {
					t.Errorf("%s: %v", text, err)
					return
				}
				told.acknowledged(text)
			}
		})
	}
	t.Cleanup(k.stop)
	return k
}

// stop lets everybody finish the sentence.
func (k *talk) stop() {
	k.cancel()
	k.done.Wait()
}

func pageText(i int) string { return fmt.Sprintf("page %d", i) }

// typeInto types three lines and returns how many the page took. When it is
// disconnected or reloading it still takes them: they wait in its outbox.
func typeInto(t *testing.T, p *page, from int) int {
	t.Helper()
	for i := range 3 {
		if err := p.do(nil, "send", map[string]any{"text": pageText(from + i)}); err != nil {
			t.Errorf("typing: %v", err)
			return i
		}
	}
	return 3
}

func toggle(t *testing.T, p *page) {
	t.Helper()
	if err := p.do(nil, "toggle", nil); err != nil {
		t.Error(err)
	}
}

func pause(random *rand.Rand, most int) {
	time.Sleep(time.Duration(random.IntN(most)) * time.Millisecond)
}

func port(address string) string {
	for i := len(address) - 1; ; i-- {
		if address[i] == ':' {
			return address[i+1:]
		}
	}
}

// storedLog reads the whole room with a client that was never there before.
func storedLog(t *testing.T, server *process) []line {
	t.Helper()
	conn := dial(t, server.grpc)
	defer conn.Close()
	api := reprisev1.NewChatServiceClient(conn)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer dev:gopher")
	var log []line
	for {
		r, err := api.ListEvents(ctx, &reprisev1.ListEventsRequest{Room: room, After: uint64(len(log)), Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range r.GetStretches() {
			for _, e := range s.GetEvents() {
				if e.GetAfter() != uint64(len(log)) {
					t.Fatalf("the stored log has a hole after %d", len(log))
				}
				log = append(log, toLine(e))
			}
		}
		if !r.GetMore() {
			return log
		}
	}
}
