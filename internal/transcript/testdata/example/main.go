package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	reprise "github.com/reprise-chat/reprise/client"
)

// printer shows what happens in the client's rooms.
type printer struct{}

func (printer) HandleEvent(_ context.Context, e reprise.Event) error   { fmt.Println(e); return nil }
func (printer) HandleGap(_ context.Context, g reprise.Gap) error       { fmt.Println(g); return nil }
func (printer) HandleRewind(_ context.Context, r reprise.Rewind) error { fmt.Println(r); return nil }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	client, err := reprise.New(reprise.Config{
		Addresses: []string{"127.0.0.1:9090"},
		Token:     func(context.Context) (string, error) { return reprise.DevelopmentToken("gopher") },
		Rooms:     []string{"lobby"}, // to be in
		History:   20,                // events to begin with
		OnState:   func(s reprise.State) { fmt.Println("--", s) },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	go func() {
		if _, err := client.Send(ctx, "lobby", "hello from Go"); err != nil {
			log.Print(err)
		}
	}()
	if err := client.Run(ctx, printer{}); err != nil {
		log.Print(err)
	}
}
