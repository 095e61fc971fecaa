package command

import (
	"context"

	"github.com/spf13/cobra"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/cmd/reprise/internal/line"
)

// member is a member as --json prints it.
type member struct {
	User string `json:"user"`
	// Joined is the offset of the event by which the membership began.
	Joined uint64 `json:"joined"`
}

func newMembers(std Streams) *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:     "members ROOM",
		Short:   "List the members of a room",
		Example: "  reprise members lobby",
		Args:    arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.room = args[0]
			return f.call(cmd.Context(), func(ctx context.Context, client *reprise.Client) error {
				table := newTable(std.Out, f.asJSON, "USER", "MEMBER SINCE OFFSET")
				for m, err := range client.ListMembers(ctx, args[0]) {
					if err != nil {
						return err
					}
					if err := table.row(member{m.GetUser(), m.GetJoined()}, line.Clean(m.GetUser()), m.GetJoined()); err != nil {
						return err
					}
				}
				return table.end("%s has no members.", args[0])
			})
		},
	}
	f.register(cmd, std)
	return cmd
}
