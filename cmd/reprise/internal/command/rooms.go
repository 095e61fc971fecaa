package command

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/cmd/reprise/internal/line"
)

// room is a room as --json prints it.
type room struct {
	Name    string `json:"name"`
	Title   string `json:"title,omitempty"`
	Access  string `json:"access"`
	Creator string `json:"creator"`
	Members uint32 `json:"members"`
	// Oldest is head + 1 if nothing is retained.
	Oldest      uint64 `json:"oldest"`
	Head        uint64 `json:"head"`
	Incarnation string `json:"incarnation"`
}

func roomOf(r *reprise.Room) room {
	access := "open"
	if r.GetAccess() == reprise.AccessPrivate {
		access = "private"
	}
	return room{
		Name: r.GetName(), Title: r.GetTitle(), Access: access, Creator: r.GetCreator(),
		Members: r.GetMembers(), Oldest: r.GetOldest(), Head: r.GetHead(), Incarnation: r.GetIncarnation(),
	}
}

func newRooms(std Streams) *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:   "rooms",
		Short: "List your rooms, join and leave",
		Long:  `List the rooms you are a member of, with the oldest and newest offset each keeps.`,
		Example: `  reprise rooms
  reprise rooms --json | jq -r .name
  reprise rooms join lobby`,
		Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd.Context(), func(ctx context.Context, client *reprise.Client) error {
				return listRooms(ctx, client, std.Out, f.asJSON)
			})
		},
	}
	f.register(cmd, std)
	cmd.AddCommand(newRoomsJoin(std), newRoomsLeave(std))
	return cmd
}

func listRooms(ctx context.Context, client *reprise.Client, out io.Writer, asJSON bool) error {
	table := newTable(out, asJSON, "ROOM", "MEMBERS", "OLDEST", "HEAD", "ACCESS", "TITLE")
	for r, err := range client.ListRooms(ctx) {
		if err != nil {
			return err
		}
		r := roomOf(r)
		if err := table.row(r, r.Name, r.Members, r.Oldest, r.Head, r.Access, line.One(r.Title)); err != nil {
			return err
		}
	}
	return table.end("You are a member of no room yet. Join one with: %s rooms join lobby", self())
}

func newRoomsJoin(std Streams) *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:     "join ROOM",
		Short:   "Become a member of a room; an open one is made if there is none",
		Example: "  reprise rooms join lobby",
		Args:    arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.room = args[0]
			return f.call(cmd.Context(), func(ctx context.Context, client *reprise.Client) error {
				joined, err := client.Join(ctx, args[0], 0)
				if err != nil {
					return err
				}
				tell(std, f.asJSON, roomOf(joined), "joined: %s, members: %d", joined.GetName(), joined.GetMembers())
				return nil
			})
		},
	}
	f.register(cmd, std)
	return cmd
}

func newRoomsLeave(std Streams) *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:     "leave ROOM",
		Short:   "End your membership of a room",
		Example: "  reprise rooms leave lobby",
		Args:    arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.room = args[0]
			return f.call(cmd.Context(), func(ctx context.Context, client *reprise.Client) error {
				if err := client.Leave(ctx, args[0]); err != nil {
					return err
				}
				tell(std, f.asJSON, map[string]string{"left": args[0]}, "left: %s", args[0])
				return nil
			})
		},
	}
	f.register(cmd, std)
	return cmd
}

// table prints rows in columns for people, or as JSON for programs.
type table struct {
	out     io.Writer
	asJSON  bool
	columns *tabwriter.Writer
	rows    int
	head    []any
}

func newTable(out io.Writer, asJSON bool, head ...any) *table {
	return &table{out: out, asJSON: asJSON, columns: tabwriter.NewWriter(out, 0, 8, 2, ' ', 0), head: head}
}

// row prints one row: record as JSON, or the cells.
func (t *table) row(record any, cells ...any) error {
	t.rows++
	if t.asJSON {
		return writeJSON(t.out, record)
	}
	if t.rows == 1 {
		if err := t.cells(t.head); err != nil {
			return err
		}
	}
	return t.cells(cells)
}

func (t *table) cells(cells []any) error {
	for i, cell := range cells {
		separator := "\t"
		if i == len(cells)-1 {
			separator = "\n"
		}
		if _, err := fmt.Fprint(t.columns, cell, separator); err != nil {
			return err
		}
	}
	return nil
}

// end prints what is left, or for people, when there were no rows, a remark.
func (t *table) end(format string, a ...any) error {
	if t.rows == 0 && !t.asJSON {
		_, err := fmt.Fprintf(t.out, format+"\n", a...)
		return err
	}
	return t.columns.Flush()
}
