package main

import (
	"context"
	"fmt"
	"log"

	reprise "github.com/reprise-chat/reprise/client"
)

type printer struct{}

func (printer) HandleEvent(_ context.Context, e reprise.Event) error {
	fmt.Println(e.Room, e.Sender, e.Text())
	return nil
}
func (printer) HandleGap(_ context.Context, g reprise.Gap) error       { fmt.Println(g); return nil }
func (printer) HandleRewind(_ context.Context, r reprise.Rewind) error { fmt.Println(r); return nil }

func main() {
	ctx := context.Background()
	client, err := reprise.New(reprise.Config{
		Addresses: []string{"127.0.0.1:9090"},
		Token:     func(context.Context) (string, error) { return "dev:gopher", nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	go client.Join(ctx, "lobby", 20)
	log.Fatal(client.Run(ctx, printer{}))
}
