package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/user"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc/codes"

	reprise "github.com/reprise-chat/reprise/client"
)

const defaultServer = "127.0.0.1:9090"

// clientFlags are the flags of every command that talks to a server.
type clientFlags struct {
	servers   []string
	caCert    string
	plaintext bool
	user      string
	token     string
	timeout   time.Duration
	asJSON    bool
	room      string // the one that the command names, for what is said of it
}

func (f *clientFlags) register(cmd *cobra.Command, std Streams) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.servers, "server", []string{defaultServer}, "the server's `host:port`; again for another one, should it not answer")
	flags.StringVar(&f.caCert, "ca-cert", "", "trust the certificates in this `file` (PEM) instead of this machine's")
	flags.BoolVar(&f.plaintext, "plaintext", false, "no TLS, though the server is on another machine: the network sees your token")
	flags.StringVar(&f.user, "user", loginName(std), "your `name`")
	flags.StringVar(&f.token, "token", "", "`credential`, instead of the development one for --user; better in the variable")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Second, "wait for an answer for this `duration`")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON, one object a line")
	bindEnvironment(cmd, std.Getenv, "server", "ca-cert", "plaintext", "user", "token")
}

// loginName is the user's name on this machine.
func loginName(std Streams) string {
	if name := std.Getenv("USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "guest"
}

// config returns what every client of this command starts from.
func (f *clientFlags) config() (reprise.Config, error) {
	if len(f.servers) == 0 {
		return reprise.Config{}, errors.New("--server is empty: give at least one host:port")
	}
	if f.timeout <= 0 {
		return reprise.Config{}, fmt.Errorf("--timeout must be more than 0, and is %v", f.timeout)
	}
	token := f.token
	if token == "" {
		var err error
		if token, err = reprise.DevelopmentToken(f.user); err != nil {
			return reprise.Config{}, fmt.Errorf("--user: %s", plainMessage(err))
		}
	}
	secure, err := f.tls()
	return reprise.Config{
		Addresses: f.servers,
		Logger:    slog.New(slog.DiscardHandler), // what a person is to read is said in words
		TLS:       secure,
		Insecure:  f.plaintext,
		Token:     func(context.Context) (string, error) { return token, nil },
	}, err
}

// connect returns a client that somebody listens to. Close it.
func (f *clientFlags) connect(ctx context.Context) (*reprise.Client, error) {
	cfg, err := f.config()
	if err != nil {
		return nil, err
	}
	if err := f.reach(ctx, &cfg); err != nil {
		return nil, err
	}
	return reprise.New(cfg)
}

// call runs do with a client, for at most the timeout.
func (f *clientFlags) call(ctx context.Context, do func(context.Context, *reprise.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	client, err := f.connect(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f.explain(do(ctx, client)), client.Close())
}

// explainedError is an error whose message also says what to do.
type explainedError struct {
	message string
	err     error
}

func (e *explainedError) Error() string { return e.message }
func (e *explainedError) Unwrap() error { return e.err }

// explain adds to an error what a person at a terminal can do about it.
func (f *clientFlags) explain(err error) error {
	if err == nil {
		return nil
	}
	message := plainMessage(err)
	var answer *reprise.Error
	switch {
	case errors.Is(err, reprise.ErrRoomNotFound):
		message = fmt.Sprintf("there is no room %s, or %s is not a member of it\nJoin it with: %s rooms join %s", f.room, f.user, self(), quoted(f.room))
	case errors.Is(err, reprise.ErrUnauthenticated):
		message += "\nSay who you are with --user, or give a credential in $REPRISE_TOKEN."
	case errors.Is(err, reprise.ErrSessionNotFound):
		message += fmt.Sprintf("\nSee what there is with: %s sessions", self())
	case errors.As(err, &answer) && answer.Code == codes.Unavailable && answer.Reason == "":
		return f.noServer(err)
	case errors.As(err, &answer) && answer.Reason != "" && answer.RetryAfter > 0:
		message += fmt.Sprintf("\nThe server still said so after %v; a longer --timeout goes on trying.", f.timeout)
	case errors.Is(err, context.DeadlineExceeded):
		message += fmt.Sprintf("\n%s did not answer within %v: is that the right server? A longer --timeout waits longer.", strings.Join(f.servers, ", "), f.timeout)
	}
	return &explainedError{message: message, err: err}
}

// quoted is a name as a shell takes it.
func quoted(name string) string {
	if strings.IndexFunc(name, func(c rune) bool {
		return !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("_.:-@", c)
	}) < 0 {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}

// plainMessage is err's message for a person: what a server says for itself,
// with the fields it does not like.
func plainMessage(err error) string {
	var answer *reprise.Error
	if !errors.As(err, &answer) {
		return strings.TrimPrefix(err.Error(), "reprise: ")
	}
	message := answer.Message
	for _, field := range answer.Fields {
		if !strings.Contains(message, field.Description) {
			message += fmt.Sprintf("\n%s: %s", field.Field, field.Description)
		}
	}
	return message
}

// tell prints what was done. A line that cannot be printed does not undo it: it
// is no failure of the command, whose exit code says whether it was done.
func tell(std Streams, asJSON bool, record any, format string, a ...any) {
	var err error
	if asJSON {
		err = writeJSON(std.Out, record)
	} else {
		_, err = fmt.Fprintf(std.Out, format+"\n", a...)
	}
	if err != nil {
		fmt.Fprintf(std.Err, "reprise: done, but it could not be printed (%v): %s\n", err, fmt.Sprintf(format, a...))
	}
}

// writeJSON writes v as one line.
func writeJSON(w io.Writer, v any) error {
	return json.NewEncoder(w).Encode(v)
}

// isTerminal reports whether stream is a terminal.
func isTerminal(stream any) bool {
	file, ok := stream.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(file.Fd()))
}
