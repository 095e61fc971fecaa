package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/cmd/reprise/internal/chat"
	"github.com/reprise-chat/reprise/cmd/reprise/internal/line"
	"github.com/reprise-chat/reprise/cmd/reprise/internal/place"
)

func newChat(std Streams) *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:   "chat ROOM",
		Short: "Chat in the terminal",
		Long: `Chat in a room, and in all the others you are a member of; the room is joined,
and made, if need be. /help in the chat says what there is.

The chat keeps its place in a file below $XDG_STATE_HOME (~/.local/state): close
it, or lose the network, and it goes on after the last message it showed. A
second chat at the same time has a place of its own.

Without a terminal, each line of standard input is a message, what happens in
the room is printed as lines, and the chat ends when the input has ended and
everything in it is on the server's disk.`,
		Example: `  reprise chat lobby
  reprise chat lobby --user bob
  (echo hello; sleep 60) | reprise chat lobby --json`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return f.chat(cmd.Context(), args[0], std) },
	}
	f.register(cmd, std)
	return cmd
}

func (f *clientFlags) chat(ctx context.Context, room string, std Streams) error {
	f.room = room
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	cfg, err := f.config()
	if err != nil {
		return err
	}
	if err := f.reach(ctx, &cfg); err != nil {
		return err
	}
	screen := isTerminal(std.In) && isTerminal(std.Out) && !f.asJSON
	store, closeStore, notice, err := f.openPlace(std, screen)
	if err != nil {
		return err
	}
	options := chat.Options{
		Config: cfg, Store: store, Notice: notice,
		Room: room, User: f.user, Server: f.servers[0], Timeout: f.timeout,
	}
	if screen {
		err = chat.Run(ctx, options, std.In, std.Out)
		if err == nil && notice == "" {
			fmt.Fprintf(std.Out, "Your place is kept: %s chat %s goes on from here.\n", self(), quoted(room))
		}
	} else {
		err = chat.Plain(ctx, options, std.In, printer{out: std.Out, asJSON: f.asJSON}.print, func(problem string) {
			fmt.Fprintf(std.Err, "-- %s --\n", line.Clean(problem))
		})
	}
	if errors.Is(err, syscall.EPIPE) {
		err = nil // whoever reads has read enough
	}
	return errors.Join(f.explain(err), closeStore())
}

// openPlace returns where this chat keeps its place. On a machine that lets
// nothing be kept, as a container without a home, that is in memory, and notice
// says so.
func (f *clientFlags) openPlace(std Streams, screen bool) (store reprise.PositionStore, closeStore func() error, notice string, err error) {
	owner := f.user
	if !screen {
		// So that what a pipe has read is still new to the person.
		owner += " piped"
	}
	dir, err := place.Dir(std.Getenv)
	if err == nil {
		var file *reprise.FileStore
		if file, err = place.Open(dir, f.servers[0], owner); err == nil {
			return file, file.Close, "", nil
		}
	}
	if errors.Is(err, place.ErrTooMany) {
		return nil, nil, "", err
	}
	return reprise.NewMemoryStore(), func() error { return nil }, "the place of this chat is not kept: " + plainMessage(err), nil
}
