package reprise_test

import (
	"context"
	"fmt"
	"log/slog"

	reprise "github.com/reprise-chat/reprise/client"
)

// printer shows what it is given.
type printer struct{}

func (printer) HandleEvent(_ context.Context, e reprise.Event) error   { fmt.Println(e); return nil }
func (printer) HandleGap(_ context.Context, g reprise.Gap) error       { fmt.Println(g); return nil }
func (printer) HandleRewind(_ context.Context, r reprise.Rewind) error { fmt.Println(r); return nil }

func ExampleClient_Run() {
	client, err := reprise.New(reprise.Config{
		Addresses: []string{"127.0.0.1:9090"},
		Token:     func(context.Context) (string, error) { return reprise.DevelopmentToken("alice") },
		Rooms:     []string{"lobby"}, // to be in
		History:   20,                // events to begin with
		OnState:   func(s reprise.State) { fmt.Println("--", s) },
	})
	if err != nil {
		slog.Error("cannot start", "error", err)
		return
	}
	defer client.Close()
	if err := client.Run(context.Background(), printer{}); err != nil {
		slog.Error("ended", "error", err)
	}
}

func ExampleConfig_plaintext() {
	_, err := reprise.New(reprise.Config{Addresses: []string{"chat.example.com:9090"}})
	fmt.Println(err)
	// Output: reprise: plaintext to "chat.example.com:9090" would show the token to the network: set Config.TLS, or Config.Insecure if that is meant
}
