package reprise_test

import (
	"context"
	"fmt"
	"log/slog"

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

func ExampleConfig_plaintext() {
	_, err := reprise.New(reprise.Config{Addresses: []string{"chat.example.com:9090"}})
	fmt.Println(err)
	// Output: reprise: plaintext to "chat.example.com:9090" would show the token to the network: set Config.TLS, or Config.Insecure if that is meant
}
