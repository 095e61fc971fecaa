package command

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	reprise "github.com/reprise-chat/reprise/client"
)

// session is a session as --json prints it.
type session struct {
	ID           string    `json:"id"`
	Created      time.Time `json:"created"`
	LastAttached time.Time `json:"last_attached"`
	Attach       uint64    `json:"attach"`
	Attached     bool      `json:"attached"`
}

func newSessions(std Streams) *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List your sessions, and end one",
		Long: `List your sessions: the places that your programs and browser tabs have in
your rooms, whether they are connected or not.`,
		Example: `  reprise sessions
  reprise sessions end s_abc`,
		Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd.Context(), func(ctx context.Context, client *reprise.Client) error {
				return listSessions(ctx, client, std.Out, f.asJSON)
			})
		},
	}
	f.register(cmd, std)
	cmd.AddCommand(newSessionsEnd(std))
	return cmd
}

func listSessions(ctx context.Context, client *reprise.Client, out io.Writer, asJSON bool) error {
	sessions, err := client.ListSessions(ctx)
	if err != nil {
		return err
	}
	table := newTable(out, asJSON, "SESSION", "STATE", "ATTACHES", "LAST ATTACHED", "CREATED")
	for _, s := range sessions {
		s := session{
			ID: s.GetId(), Created: s.GetCreateTime().AsTime(), LastAttached: s.GetAttachTime().AsTime(),
			Attach: s.GetAttach(), Attached: s.GetAttached(),
		}
		state := "away"
		if s.Attached {
			state = "attached"
		}
		err := table.row(s, s.ID, state, s.Attach, s.LastAttached.Local().Format(time.DateTime), s.Created.Local().Format(time.DateTime))
		if err != nil {
			return err
		}
	}
	return table.end("You have no sessions. A chat makes one: %s chat lobby", self())
}

func newSessionsEnd(std Streams) *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:   "end SESSION",
		Short: "End a session: its place is forgotten, a live stream of it ends",
		Long: `End a session: its place is forgotten, and a live stream of it ends. The
program it belonged to goes on from its own positions, if it kept any.`,
		Example: "  reprise sessions end s_abc",
		Args:    arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd.Context(), func(ctx context.Context, client *reprise.Client) error {
				if err := client.EndSession(ctx, args[0]); err != nil {
					return err
				}
				tell(std, f.asJSON, map[string]string{"ended": args[0]}, "ended: %s", args[0])
				return nil
			})
		},
	}
	f.register(cmd, std)
	return cmd
}
