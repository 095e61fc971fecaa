package main

import (
	"context"
	"errors"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/reprise-chat/reprise/bench/internal/peers"
	"github.com/reprise-chat/reprise/bench/internal/proc"
	"github.com/reprise-chat/reprise/bench/internal/scenario"
)

// runPeers measures against the peers that are installed.
func runPeers(b *scenario.Bench, ctx context.Context) error { //nolint:revive // of the form of the methods that are rows
	targets := []scenario.Peer{
		{Target: peers.Centrifuge{}, Times: 3},
		{Target: peers.Centrifuge{Batching: true}, Times: 3},
		{Target: peers.NATS{}}, // keeps nothing for who is away
	}
	socketIO, err := peers.FindSocketIO()
	switch {
	case errors.Is(err, peers.ErrNotInstalled):
		b.Report.Notes = append(b.Report.Notes, "peers: "+err.Error())
	case err != nil:
		return err
	default:
		targets = append(targets, scenario.Peer{Target: socketIO, Times: 10})
	}
	return b.Peers(ctx, targets...)
}

// newPeer is the server of a peer, as a process of its own.
func newPeer() *cobra.Command {
	return &cobra.Command{
		Use: peers.Command + " KIND ADDR", Short: "Serve as another project's server", Hidden: true, Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := proc.RaiseFiles(files); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM)
			defer stop()
			return peers.Serve(ctx, cmd.OutOrStdout(), args[0], args[1])
		},
	}
}
