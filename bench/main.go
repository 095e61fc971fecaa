// Command bench measures Reprise from outside, over real sockets, against the
// limits of the machine: see docs/benchmarks.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/reprise-chat/reprise/bench/internal/proc"
	"github.com/reprise-chat/reprise/bench/internal/report"
	"github.com/reprise-chat/reprise/bench/internal/scenario"
)

// files is how many sockets the largest scenario needs, with some to spare.
const files = 16 << 10

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := newRoot(os.Args[1:]).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to be undone
	}
}

// options are the flags of all measuring commands.
type options struct {
	bench   scenario.Bench
	out     string
	doc     string
	client  string
	command []string
}

// row is a command and what it measures.
type row struct {
	name, short string
	run         func(*scenario.Bench, context.Context) error
}

// rows are in the order in which `all` runs them.
var rows = []row{
	{"fanout", "One room, many subscribers: deliveries a second, CPU a delivery", noExtra((*scenario.Bench).Fanout)},
	{"publish", "Many publishers, many rooms: acknowledged events a second", noExtra((*scenario.Bench).Publish)},
	{"latency", "From publish to deliver at a fixed rate, without coordinated omission", noExtra((*scenario.Bench).Latency)},
	{"replay", "Clients that resume 100 events behind, warm and cold", noExtra((*scenario.Bench).Replay)},
	{"storm", "The server is killed and started again under its clients", noExtra((*scenario.Bench).Storm)},
	{"idle", "Memory of a connection that does nothing", noExtra((*scenario.Bench).Idle)},
	{"stalled", "Memory of a reader that takes nothing", noExtra((*scenario.Bench).Stalled)},
	{"grow", "Costs as rooms and stored events grow", (*scenario.Bench).Grow},
	{"cliff", "What others wait beside something extreme", (*scenario.Bench).Cliff},
	{"attack", "What others wait, and what the server holds, under attack", (*scenario.Bench).Attack},
	{"peers", "Fan-out and idle memory against Centrifuge, Socket.IO and NATS", runPeers},
	{"checked", "The promises, checked under full load", (*scenario.Bench).Checked},
}

func newRoot(args []string) *cobra.Command {
	o := &options{command: args}
	root := &cobra.Command{
		Use:   "bench",
		Short: "Measure Reprise against the limits of the machine",
		Long: `Measure Reprise against the limits of the machine.

Each command starts the servers it compares as processes of their own, in turn,
several times, loads them over sockets of this machine, checks that every event
came once and in order, and writes what it found as JSON and as a table. Run it
on a machine that does nothing else.`,
		Example: `  go run . quick
  go run . fanout --rounds 5
  go run . all --full --doc ../docs/benchmarks.md`,
		SilenceUsage: true, SilenceErrors: true,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&o.bench.Dir, "dir", "", "`directory` for the servers' data (default: a temporary one)")
	flags.StringVar(&o.out, "out", "results", "`directory` for the JSON of each run")
	flags.StringVar(&o.doc, "doc", "", "also write the figures and plots into this `file`, between its markers")
	flags.StringVar(&o.client, "client", "lean", "`kind` of subscribers: lean, or sdk for the Go SDK's beside the lean ones")
	flags.StringVar(&o.bench.Profile, "profile", "", "keep CPU profiles of Reprise in this `directory`, for go tool pprof; the figures are of a server that is profiled")
	flags.BoolVar(&o.bench.Full, "full", false, "all sizes, and more and longer rounds")
	flags.IntVar(&o.bench.Rounds, "rounds", 0, "`number` of rounds of each case (default 3, with --full 5)")
	flags.DurationVar(&o.bench.Duration, "duration", 0, "measure for this `duration` in each round (default 2s, with --full 4s)")
	flags.StringVar(&o.bench.Reprise, "reprise", "", "measure this `command` instead of one built from this tree")
	flags.IntVar(&o.bench.Body, "body", 128, "`bytes` of an event's text, at least 32")
	flags.IntVar(&o.bench.Scale, "scale", 1, "divide all sizes by this `number`, to try things out")
	for _, r := range rows {
		root.AddCommand(o.measuring(r))
	}
	root.AddCommand(
		o.measuring(row{"quick", "The short set: fan-out, publish, latency, replay, storm, memory, and the check", every("grow", "cliff", "attack", "peers")}),
		o.measuring(row{"all", "Everything", every()}),
		newPlot(o), newBare(), newLimit(o), newPeer(), newAttacker(),
	)
	return root
}

// noExtra is for scenarios that can compare further targets, which need
// installing and have a command of their own.
func noExtra[T any](f func(*scenario.Bench, context.Context, ...T) error) func(*scenario.Bench, context.Context) error {
	return func(b *scenario.Bench, ctx context.Context) error { return f(b, ctx) }
}

// every runs all rows but some.
func every(but ...string) func(*scenario.Bench, context.Context) error {
	return func(b *scenario.Bench, ctx context.Context) error {
		for _, r := range rows {
			if slices.Contains(but, r.name) {
				continue
			}
			if err := r.run(b, ctx); err != nil {
				return err
			}
		}
		return nil
	}
}

func (o *options) measuring(r row) *cobra.Command {
	return &cobra.Command{
		Use: r.name, Short: r.short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.measure(cmd, r) },
	}
}

// measure runs a row and writes what it found down, also when it ends early.
func (o *options) measure(cmd *cobra.Command, r row) (err error) {
	if err := o.prepare(cmd); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(o.bench.Dir, "reprise-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	o.bench.Dir = temp
	if o.bench.Reprise == "" {
		if o.bench.Reprise, err = proc.Build(cmd.Context(), temp); err != nil {
			return err
		}
	}
	began := time.Now()
	o.bench.Report = report.New(o.command)
	err = r.run(&o.bench, cmd.Context())
	o.bench.Report.Took = time.Since(began).Seconds()
	return errors.Join(err, o.write(cmd, err == nil))
}

func (o *options) prepare(cmd *cobra.Command) error {
	switch o.client {
	case "lean":
	case "sdk":
		o.bench.SDK = true
	default:
		return fmt.Errorf("--client %q is neither lean nor sdk", o.client)
	}
	if o.bench.Body < 32 {
		return fmt.Errorf("--body %d is too small: an event carries a number and a time, 32 bytes", o.bench.Body)
	}
	if o.bench.Profile != "" {
		if o.doc != "" {
			return errors.New("--profile slows the server down: measure once more without it for --doc")
		}
		if err := os.MkdirAll(o.bench.Profile, 0o755); err != nil { //nolint:gosec // nothing secret
			return err
		}
	}
	o.bench.Progress = cmd.ErrOrStderr()
	return proc.RaiseFiles(files)
}

func (o *options) write(cmd *cobra.Command, complete bool) error {
	r := o.bench.Report
	file, err := r.Save(o.out)
	if err == nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "written to", file)
	}
	if complete && o.doc != "" {
		err = errors.Join(err, r.WriteDoc(o.doc))
	}
	return errors.Join(err, r.Text(cmd.OutOrStdout()))
}

// newPlot writes a document anew from a saved run.
func newPlot(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "plot FILE...", Short: "Write a document (--doc) from the JSON of a run, or of several that complete each other", Args: cobra.MinimumNArgs(1),
		Example: "  go run . plot results/20260101-120000.json results/20260101-130000.json --doc ../docs/benchmarks.md",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := report.Load(args[0])
			if err != nil {
				return err
			}
			for _, file := range args[1:] {
				more, err := report.Load(file)
				if err != nil {
					return err
				}
				r.Merge(more)
			}
			if o.doc != "" {
				if err := r.WriteDoc(o.doc); err != nil {
					return err
				}
			}
			return r.Text(cmd.OutOrStdout())
		},
	}
}
