// Package command is the command line of reprise: one file for each command.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2 // the command was not understood, and nothing was done
)

// Streams is what a command reads and writes, and where it looks up variables
// of the environment.
type Streams struct {
	In     io.Reader
	Out    io.Writer
	Err    io.Writer
	Getenv func(name string) string
}

// System returns the streams of the process.
func System() Streams {
	return Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv}
}

// Run carries out one command line, without the program's name, and returns
// the exit code. It returns early when ctx ends. `serve` and `chat` also
// listen to the process's signals.
func Run(ctx context.Context, args []string, std Streams) int {
	root := newRoot(std)
	root.SetArgs(withDefault(args))
	root.SetIn(std.In)
	root.SetOut(std.Out)
	root.SetErr(std.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(std.Err, "reprise: %v\n", err)
	if usage := (*usageError)(nil); errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailure
}

// withDefault puts the default command in front of arguments that name none.
func withDefault(args []string) []string {
	switch {
	case len(args) == 0:
		return []string{"serve"}
	case args[0] == "-h", args[0] == "--help", args[0] == "--version", !strings.HasPrefix(args[0], "-"):
		return args
	}
	return append([]string{"serve"}, args...)
}

func newRoot(std Streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "reprise",
		Short: "Chat that never loses its place",
		Long: `Reprise is a realtime chat service whose clients never lose their place.

Without a command, reprise serves. In another terminal, reprise chat lobby
starts to chat; open a second one with --user to have somebody to talk to.`,
		Example: `  reprise                          # a server on this machine
  reprise chat lobby               # chat in a room
  reprise send lobby "it works"    # say something and leave
  reprise tail lobby --follow      # read along`,
		Version:       version().Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("reprise {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(
		newServe(std), newChat(std), newSend(std), newTail(std),
		newRooms(std), newMembers(std), newSessions(std), newCheck(std), newBackup(std), newVersion(std),
	)
	return root
}

// noCommand refuses what stands where a command should.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	message := fmt.Sprintf("there is no command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		message += fmt.Sprintf(", did you mean %q?", near[0])
	}
	return usagef(cmd, "%s", message)
}

// usageError is a command line that was not understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// usagef returns a usageError that says where the help is.
func usagef(cmd *cobra.Command, format string, a ...any) error {
	return &usageError{fmt.Errorf(format+"\nSee %s --help.", append(a, cmd.CommandPath())...)}
}

// flagError is a flag that was not understood.
func flagError(cmd *cobra.Command, err error) error {
	var bad *pflag.InvalidValueError
	if !errors.As(err, &bad) {
		return usagef(cmd, "%w", err)
	}
	return usagef(cmd, "--%s %q %s", bad.GetFlag().Name, bad.GetValue(), badValue(err))
}

// badValue says what the value of a flag must be. The words of the packages
// that parse numbers are for programmers.
func badValue(err error) string {
	var bad *pflag.InvalidValueError
	if !errors.As(err, &bad) {
		return err.Error()
	}
	if errors.Is(err, strconv.ErrRange) {
		return "is out of range"
	}
	switch bad.GetFlag().Value.Type() {
	case "uint32", "uint64":
		return "must be a whole number from 0 up"
	case "int", "int64":
		return "must be a whole number"
	case "float64":
		return "must be a number, like 100 or 0.5"
	case "duration":
		return "must be a duration with its unit, of at most 290 years, like 500ms, 90s, 10m or 24h"
	case "bool":
		return "must be true or false"
	}
	return "is refused: " + errors.Unwrap(bad).Error()
}

// arguments wraps a check of positional arguments so that what it refuses
// counts as a usage error and shows how the command is used.
func arguments(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usagef(cmd, "%w\nUsage: %s", err, cmd.UseLine())
		}
		return nil
	}
}

// bindEnvironment lets the named flags of cmd be set by variables as well, a
// flag on the command line going first, and says so in the help.
func bindEnvironment(cmd *cobra.Command, getenv func(string) string, names ...string) {
	for _, name := range names {
		cmd.Flags().Lookup(name).Usage += fmt.Sprintf(" [$%s]", variable(name))
	}
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		for _, name := range names {
			value := getenv(variable(name))
			if value == "" || cmd.Flags().Changed(name) {
				continue
			}
			if err := cmd.Flags().Set(name, value); err != nil {
				return usagef(cmd, "%s=%q %s", variable(name), value, badValue(err))
			}
		}
		return nil
	}
}

// variable is the name of the environment's variable for a flag.
func variable(flag string) string {
	return "REPRISE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// self is how a person starts this program again: what they typed, or the
// source if the go command runs it.
func self() string {
	path, err := os.Executable()
	if err == nil && strings.Contains(filepath.ToSlash(path), "/go-build") {
		return "go run ./cmd/reprise"
	}
	if name := os.Args[0]; strings.Contains(name, "/") {
		return name
	}
	return "reprise"
}
