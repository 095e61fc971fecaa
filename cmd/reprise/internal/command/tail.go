package command

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/cmd/reprise/internal/line"
)

// maxLast is what the contract allows for TailRequest.last.
const maxLast = 10000

// tailFlags are the flags of tail.
type tailFlags struct {
	clientFlags
	last   uint32
	after  uint64
	limit  uint64
	follow bool
	join   bool
}

func newTail(std Streams) *cobra.Command {
	var f tailFlags
	cmd := &cobra.Command{
		Use:   "tail ROOM",
		Short: "Read a room's log, and follow it",
		Long: `Read a room's log: the newest events, or those after an offset, and with
--follow what comes from now on. Ranges that the server no longer has are
shown as gaps, and never left out silently.

With --json each line is an object whose "type" is message, custom, joined,
left, created, gap, rewind or caught_up.`,
		Example: `  reprise tail lobby --last 20 --follow
  reprise tail lobby --after 0 --json | jq -r 'select(.type == "message").text'`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], std) },
	}
	f.register(cmd, std)
	flags := cmd.Flags()
	flags.Uint32Var(&f.last, "last", 10, "start with this `number` of the newest events, at most 10000")
	flags.Uint64Var(&f.after, "after", 0, "start after this `offset` instead; 0 for the oldest event")
	flags.Uint64Var(&f.limit, "limit", 0, "end after this `number` of events; 0 for no limit")
	flags.BoolVarP(&f.follow, "follow", "f", false, "go on with what comes from now on")
	flags.BoolVar(&f.join, "join", false, "join the room first")
	return cmd
}

func (f *tailFlags) run(cmd *cobra.Command, room string, std Streams) error {
	f.room = room
	if cmd.Flags().Changed("after") {
		if cmd.Flags().Changed("last") {
			return usagef(cmd, "--last and --after both say where to start: give one")
		}
		f.last = 0
	}
	if f.last > maxLast {
		return usagef(cmd, "--last is at most %d, and is %d", maxLast, f.last)
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	client, err := f.connect(ctx)
	if err != nil {
		return err
	}
	err = f.tail(ctx, client, room, cmd.Flags().Changed("after"), printer{out: std.Out, asJSON: f.asJSON})
	if errors.Is(err, syscall.EPIPE) {
		err = nil // whoever reads has read enough
	}
	return errors.Join(f.explain(err), client.Close())
}

func (f *tailFlags) tail(ctx context.Context, client *reprise.Client, room string, fromAfter bool, p printer) error {
	options := reprise.TailOptions{After: f.after, Last: f.last, Limit: f.limit, Follow: f.follow}
	if err := f.prepare(ctx, client, room, &options, fromAfter); err != nil {
		return err
	}
	return client.Tail(ctx, room, options, p)
}

// prepare joins the room if asked to, and turns "none of what is there" into
// the head, which the contract has no other way to say.
func (f *tailFlags) prepare(ctx context.Context, client *reprise.Client, room string, options *reprise.TailOptions, fromAfter bool) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	if f.join {
		if _, err := client.Join(ctx, room, 0); err != nil {
			return err
		}
	}
	if fromAfter || f.last > 0 {
		return nil
	}
	state, err := client.GetRoom(ctx, room)
	if err != nil {
		return err
	}
	options.After, options.Incarnation = state.GetHead(), state.GetIncarnation()
	return nil
}

// printer is the handler that prints.
type printer struct {
	out    io.Writer
	asJSON bool
}

func (p printer) print(r line.Record) error {
	if p.asJSON {
		return writeJSON(p.out, r)
	}
	_, err := io.WriteString(p.out, r.Plain()+"\n")
	return err
}

// HandleEvent implements reprise.Handler.
func (p printer) HandleEvent(_ context.Context, e reprise.Event) error {
	return p.print(line.OfEvent(e))
}

// HandleGap implements reprise.Handler.
func (p printer) HandleGap(_ context.Context, g reprise.Gap) error {
	return p.print(line.OfGap(g))
}

// HandleRewind implements reprise.Handler.
func (p printer) HandleRewind(_ context.Context, r reprise.Rewind) error {
	return p.print(line.OfRewind(r))
}

// HandleCaughtUp implements reprise.CaughtUpHandler. Only programs are told;
// people see it.
func (p printer) HandleCaughtUp(_ context.Context, c reprise.CaughtUp) error {
	if !p.asJSON {
		return nil
	}
	return p.print(line.OfCaughtUp(c))
}
