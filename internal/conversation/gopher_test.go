package conversation

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	reprise "github.com/reprise-chat/reprise/client"
)

// gopher is the Go SDK, with its positions in a file.
type gopher struct {
	heard
	client *reprise.Client
}

func newGopher(t *testing.T, address, room string) *gopher {
	t.Helper()
	store, err := reprise.OpenFile(filepath.Join(t.TempDir(), "positions"))
	if err != nil {
		t.Fatal(err)
	}
	g := &gopher{heard: heard{who: "gopher"}}
	g.client, err = reprise.New(reprise.Config{
		Logger:    slog.New(slog.DiscardHandler),
		Addresses: []string{address},
		Token:     func(context.Context) (string, error) { return "dev:gopher", nil },
		Positions: store,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.client.Join(t.Context(), room, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- g.client.Run(ctx, g) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		g.client.Close()
		store.Close()
	})
	return g
}

func (g *gopher) HandleEvent(_ context.Context, e reprise.Event) error {
	g.add(line{e.Offset, e.Sender, e.Text()})
	return nil
}

func (g *gopher) HandleGap(_ context.Context, gap reprise.Gap) error {
	g.complain("was told of a gap: %v", gap)
	return nil
}

func (g *gopher) HandleRewind(_ context.Context, r reprise.Rewind) error {
	g.complain("was rewound: %v", r)
	return nil
}

func (g *gopher) send(ctx context.Context, room, text string) error {
	_, err := g.client.Send(ctx, room, text)
	return err
}
