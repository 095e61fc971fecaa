package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/reprise-chat/reprise/bench/internal/bare"
	"github.com/reprise-chat/reprise/bench/internal/load"
	"github.com/reprise-chat/reprise/bench/internal/proc"
)

// newAttacker is whoever attacks a server, as a process of its own.
func newAttacker() *cobra.Command {
	var grpcAddr, httpURL, token string
	cmd := &cobra.Command{
		Use: "attacker", Short: "Attack a server until it is killed", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := unix.Setpriority(unix.PRIO_PROCESS, 0, lowest); err != nil {
				return err
			}
			// The address is for whoever starts it as if it were a server.
			if err := json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{"grpc": grpcAddr}); err != nil {
				return err
			}
			return load.Attack(cmd.Context(), grpcAddr, httpURL, token)
		},
	}
	cmd.Flags().StringVar(&grpcAddr, "grpc", "", "`host:port` of gRPC")
	cmd.Flags().StringVar(&httpURL, "http", "", "`URL` of the port for browsers")
	cmd.Flags().StringVar(&token, "token", "", "bearer `token`; none if empty")
	return cmd
}

// lowest is the lowest priority of a process.
const lowest = 19

// newBare is the bare server, as a process of its own.
func newBare() *cobra.Command {
	var addr, dir string
	cmd := &cobra.Command{
		Use: "bare", Short: "Serve as the bare grpc-go server", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := proc.RaiseFiles(files); err != nil {
				return err
			}
			var committer *bare.Committer
			if dir != "" {
				var err error
				if committer, err = bare.OpenPebble(dir); err != nil {
					return err
				}
			}
			var config net.ListenConfig
			l, err := config.Listen(cmd.Context(), "tcp", addr)
			if err != nil {
				return err
			}
			metrics, err := config.Listen(cmd.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			failed := make(chan error, 2)
			server := &http.Server{Handler: http.HandlerFunc(bare.Metrics), ReadHeaderTimeout: time.Minute}
			go func() { failed <- server.Serve(metrics) }()
			go func() { failed <- bare.NewServer(committer).Serve(l) }()
			err = json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{
				"grpc": l.Addr().String(), "http": "http://" + metrics.Addr().String(),
			})
			if err != nil {
				return err
			}
			return <-failed
		},
	}
	cmd.Flags().StringVar(&addr, "addr", "127.0.0.1:0", "`host:port` to listen on")
	cmd.Flags().StringVar(&dir, "pebble", "", "commit to Pebble in this `directory` first")
	return cmd
}

// newLimit is a committer with its publishers inside.
func newLimit(o *options) *cobra.Command {
	var publishers, rooms int
	var ids bool
	cmd := &cobra.Command{
		Use: "limit pebble|file", Short: "Commit in process, without a wire", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			data, err := os.MkdirTemp(o.bench.Dir, "limit-")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, os.RemoveAll(data)) }()
			var c *bare.Committer
			switch args[0] {
			case "pebble":
				c, err = bare.OpenPebble(data)
			case "file":
				c, err = bare.OpenFile(data)
			default:
				err = fmt.Errorf("no limit %q", args[0])
			}
			if err != nil {
				return err
			}
			p := bare.Publish(c, publishers, rooms, o.bench.Body, ids, o.bench.Duration)
			if err := c.Close(); err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(p)
		},
	}
	flags := cmd.Flags()
	// --dir, --body and --duration are those of all commands.
	flags.IntVar(&publishers, "publishers", 512, "`number` of publishers")
	flags.IntVar(&rooms, "rooms", 1000, "`number` of rooms")
	flags.BoolVar(&ids, "ids", false, "with an idempotency key for each event")
	return cmd
}
