package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	reprise "github.com/reprise-chat/reprise/client"
)

// maxStdin bounds what is read as one message; the server's own limit, which
// it enforces, is below it.
const maxStdin = 1 << 20

// sendFlags are the flags of send.
type sendFlags struct {
	clientFlags
	clientID string
	noJoin   bool
}

// sent is a receipt as --json prints it.
type sent struct {
	Room        string    `json:"room"`
	Incarnation string    `json:"incarnation"`
	Offset      uint64    `json:"offset"`
	Time        time.Time `json:"time"`
	ClientID    string    `json:"client_id"`
	// Duplicate says that the message was there already: nothing was added.
	Duplicate bool `json:"duplicate"`
}

func newSend(std Streams) *cobra.Command {
	var f sendFlags
	cmd := &cobra.Command{
		Use:   "send ROOM [TEXT]",
		Short: "Send one message",
		Long: `Send one message, and join the room for that if need be. Without TEXT the
message is what standard input has.

When send succeeds the message is on the server's disk. When it fails without
an answer, sending again with the same --client-id is safe: there will be one
message.`,
		Example: `  reprise send lobby "the build is green"
  make 2>&1 | tail -20 | reprise send builds
  reprise send lobby "only once" --client-id deploy-42`,
		Args: arguments(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args, std) },
	}
	f.register(cmd, std)
	cmd.Flags().StringVar(&f.clientID, "client-id", "", "idempotency `key`: the same one again sends nothing new")
	cmd.Flags().BoolVar(&f.noJoin, "no-join", false, "fail instead of joining the room")
	return cmd
}

func (f *sendFlags) run(cmd *cobra.Command, args []string, std Streams) error {
	room := args[0]
	f.room = room
	text, err := message(cmd, args[1:], std)
	if err != nil {
		return err
	}
	var options []reprise.SendOption
	if f.clientID != "" {
		options = append(options, reprise.WithClientID(f.clientID))
	}
	return f.call(cmd.Context(), func(ctx context.Context, client *reprise.Client) error {
		receipt, err := client.Send(ctx, room, text, options...)
		if errors.Is(err, reprise.ErrRoomNotFound) && !f.noJoin {
			if _, err := client.Join(ctx, room, 0); err != nil {
				return err
			}
			receipt, err = client.Send(ctx, room, text, options...)
		}
		if err != nil {
			return err
		}
		f.report(std, receipt)
		return nil
	})
}

func (f *sendFlags) report(std Streams, r reprise.Receipt) {
	what := "sent"
	if r.Duplicate {
		what = "was sent before"
	}
	tell(std, f.asJSON, sent{r.Room, r.Incarnation, r.Offset, r.Time.UTC(), r.ClientID, r.Duplicate}, "%s: %s %d", what, r.Room, r.Offset)
}

// message returns the text to send: the argument, or standard input.
func message(cmd *cobra.Command, args []string, std Streams) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	if isTerminal(std.In) {
		return "", usagef(cmd, "there is no text to send: give it as an argument, or on standard input")
	}
	text, err := io.ReadAll(io.LimitReader(std.In, maxStdin+1))
	if err != nil {
		return "", err
	}
	if len(text) > maxStdin {
		return "", fmt.Errorf("standard input has more than %d bytes: too much for one message", maxStdin)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}
