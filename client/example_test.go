package reprise_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	reprise "github.com/reprise-chat/reprise/client"
)

// printer shows what it is given.
type printer struct{}

func (printer) HandleEvent(_ context.Context, e reprise.Event) error {
	switch {
	case e.Proto.GetMessage() != nil:
		fmt.Printf("%s: %s\n", e.Sender, e.Text())
	case e.Proto.GetMemberChange() != nil:
		fmt.Println(e.Proto.GetMemberChange().GetUser(), "joined or left")
	}
	return nil
}

func (printer) HandleGap(_ context.Context, g reprise.Gap) error {
	fmt.Println(g)
	return nil
}

func (printer) HandleRewind(_ context.Context, r reprise.Rewind) error {
	fmt.Println(r)
	return nil
}

func ExampleClient_Run() {
	ctx := context.Background()
	client, err := reprise.New(reprise.Config{
		Addresses: []string{"127.0.0.1:9090"},
		Token:     func(context.Context) (string, error) { return "dev:alice", nil },
	})
	if err != nil {
		slog.Error("cannot start", "error", err)
		return
	}
	defer client.Close()
	if _, err := client.Join(ctx, "lobby", 0); err != nil {
		slog.Error("cannot join", "error", err)
		return
	}
	if err := client.Run(ctx, printer{}); err != nil {
		slog.Error("ended", "error", err)
	}
}

// database stands for one: commit changes all it is given or nothing.
type database struct {
	mu        sync.Mutex
	counts    map[string]int
	positions map[string]reprise.Position
}

func (db *database) commit(sender string, p reprise.Position) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if sender != "" {
		db.counts[sender]++
	}
	db.positions[p.Room] = p
}

func (db *database) load(context.Context) ([]reprise.Position, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	var all []reprise.Position
	for _, p := range db.positions {
		all = append(all, p)
	}
	return all, nil
}

// counter counts events by sender, each exactly once: the count and the
// position are committed together.
type counter struct{ db *database }

func (c counter) HandleEvent(_ context.Context, e reprise.Event) error {
	c.db.commit(e.Sender, e.Position())
	return nil
}

func (c counter) HandleGap(_ context.Context, g reprise.Gap) error {
	c.db.commit("", g.Position()) // and remember that the counts lack something
	return nil
}

func (c counter) HandleRewind(_ context.Context, r reprise.Rewind) error {
	c.db.commit("", r.Position()) // and take back what came after r.To
	return nil
}

func ExampleHandlerStore() {
	db := &database{counts: map[string]int{}, positions: map[string]reprise.Position{}}
	client, err := reprise.New(reprise.Config{
		Addresses: []string{"127.0.0.1:9090"},
		Positions: reprise.HandlerStore(db.load, nil),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	// client.Run(ctx, counter{db}) calls this for each event:
	event := reprise.Event{Room: "lobby", Incarnation: "i_1", Offset: 7, Sender: "alice"}
	if err := (counter{db}).HandleEvent(context.Background(), event); err != nil {
		fmt.Println(err)
	}
	positions, _ := db.load(context.Background())
	fmt.Println(db.counts["alice"], positions[0].Room, positions[0].Offset)
	// Output: 1 lobby 7
}

func ExampleConfig_plaintext() {
	_, err := reprise.New(reprise.Config{Addresses: []string{"chat.example.com:9090"}})
	fmt.Println(err)
	// Output: reprise: plaintext to "chat.example.com:9090" would show the token to the network: set Config.TLS, or Config.Insecure if that is meant
}
