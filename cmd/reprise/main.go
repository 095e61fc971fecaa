// Command reprise is the server of Reprise and a client for people: it serves,
// chats, sends, tails, and shows rooms, members and sessions.
package main

import (
	"context"
	"os"

	"github.com/reprise-chat/reprise/cmd/reprise/internal/command"
)

func main() {
	os.Exit(command.Run(context.Background(), os.Args[1:], command.System()))
}
