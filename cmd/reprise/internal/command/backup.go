package command

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/reprise-chat/reprise/server"
)

func newBackup(std Streams) *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "backup DEST",
		Short: "Copy a data directory, while it is served or not",
		Long: `Copy a data directory to DEST, which must not exist. If a server uses it, that
server makes the copy while it goes on serving: it has everything that was
acknowledged before. The copy is checked before it gets its name.

A server on the copy resumes every client; those that hold more than it has are
told to forget that, with a Rewind.`,
		Example: `  reprise backup /backup/reprise-monday
  reprise backup --dir /var/lib/reprise /backup/reprise-monday
  reprise serve --dir /backup/reprise-monday`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			dest, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			// So that an interrupted backup leaves nothing behind.
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			live, err := backup(ctx, dir, dest)
			if err != nil {
				return err
			}
			tell(std, asJSON, struct {
				Backup string `json:"backup"`
				Live   bool   `json:"live"`
			}{dest, live}, "copied and checked: %s", dest)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "reprise-data", "`directory` of the data")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	bindEnvironment(cmd, std.Getenv, "dir")
	return cmd
}

// backup copies dir to dest by itself, or has the server do it that uses dir.
func backup(ctx context.Context, dir, dest string) (live bool, err error) {
	err = server.Backup(ctx, dir, dest)
	if !errors.Is(err, server.ErrLocked) {
		return false, err
	}
	return true, askForBackup(ctx, dir, dest)
}

// explainLocked says what to do about a directory that a server uses.
func explainLocked(err error, dir, advice string) error {
	if !errors.Is(err, server.ErrLocked) {
		return err
	}
	return &explainedError{message: fmt.Sprintf("a server uses the data directory %s: %s", dir, advice), err: err}
}
