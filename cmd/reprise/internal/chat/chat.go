// Package chat is the terminal chat: a screen for people, and plain lines for
// pipes.
package chat

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	reprise "github.com/reprise-chat/reprise/client"
)

// outboxSize bounds how many messages wait for the one before them to be
// confirmed.
const outboxSize = 64

// Options say who chats where.
type Options struct {
	// Config reaches the server. Its store, focus and state callback are set
	// here.
	Config reprise.Config
	// Store keeps the chat's place. The caller closes it afterwards.
	Store reprise.PositionStore
	// Room is entered first, and joined if need be.
	Room string
	// User is the name under which Config's token is known, Server what to
	// call the server.
	User, Server string
	// Notice, if not empty, is said at the start.
	Notice string
	// Timeout bounds the first contact with the server. Afterwards the chat
	// goes on trying for as long as it is open.
	Timeout time.Duration
}

// outgoing is a message to be sent.
type outgoing struct {
	room, clientID, text string
}

// newClientID returns an idempotency key.
func newClientID() string { return "chat-" + rand.Text() }

// plain is an error's message for a person: what the server says for itself,
// or what went wrong here without the library's name in front.
func plain(err error) string {
	var answer *reprise.Error
	if errors.As(err, &answer) {
		return answer.Message
	}
	return strings.TrimPrefix(err.Error(), "reprise: ")
}

// Run shows the chat on a terminal until the person quits or ctx ends. It
// returns an error if the chat could not start, or ended by itself.
func Run(ctx context.Context, o Options, in io.Reader, out io.Writer) error {
	saved, err := o.Store.Load(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	outbox := make(chan outgoing, outboxSize)
	var program *tea.Program // set before the first state changes
	o.Config.OnState = func(s reprise.State) { program.Send(stateMsg(s)) }
	client, err := connect(ctx, &o)
	if err != nil {
		return err
	}
	m := newModel(ctx, client, outbox, o)
	if o.Notice != "" {
		m.note(o.Room, o.Notice)
	}
	for _, p := range saved.Places {
		m.room(p.Position.Room).begin(p.Position.Offset)
	}
	program = tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out))
	return errors.Join(m.run(program, cancel, outbox), client.Close())
}

// connect makes the client and the first contact: it joins the room. The room
// is one of Config.Rooms too, so that what is sent to it waits for Run: an event
// sent by a call of its own, before a new session is open, is not shown.
func connect(ctx context.Context, o *Options) (*reprise.Client, error) {
	o.Config.Positions, o.Config.Focus, o.Config.Rooms = o.Store, []string{o.Room}, []string{o.Room}
	client, err := reprise.New(o.Config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	if _, err := client.Join(ctx, o.Room, 0); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return client, nil
}

// run owns what goes on beside the screen: the client's Run and the sending.
// When the screen has ended it waits for both.
func (m *model) run(program *tea.Program, cancel context.CancelFunc, outbox <-chan outgoing) error {
	closed := make(chan struct{})
	ran, sent := make(chan error, 1), make(chan struct{})
	go func() {
		err := m.client.Run(m.ctx, feed{program: program, closed: closed})
		ran <- err
		program.Send(endedMsg{err})
	}()
	go func() {
		defer close(sent)
		deliver(m.ctx, m.client, outbox, func(s sentMsg) { program.Send(s) })
	}()
	_, err := program.Run()
	close(closed)
	cancel()
	ended := <-ran
	<-sent
	if errors.Is(ended, errClosing) {
		ended = nil
	}
	if errors.Is(err, tea.ErrInterrupted) || errors.Is(err, tea.ErrProgramKilled) {
		err = nil // a signal, or ctx: as good as /quit
	}
	return errors.Join(err, ended, m.unsent())
}

// deliver sends what is put into the outbox, one after the other so that it
// stays in order, until ctx ends.
func deliver(ctx context.Context, client *reprise.Client, outbox <-chan outgoing, report func(sentMsg)) {
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-outbox:
			_, err := client.Send(ctx, o.room, o.text, reprise.WithClientID(o.clientID))
			report(sentMsg{room: o.room, clientID: o.clientID, err: err})
		}
	}
}

// unsent is an error that says what the server has not confirmed, nil if it
// has confirmed everything.
func (m *model) unsent() error {
	var texts []string
	for _, name := range m.order() {
		for _, p := range m.rooms[name].pending {
			if !p.sent && p.err == nil {
				texts = append(texts, fmt.Sprintf("  %s: %s", name, p.text))
			}
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return fmt.Errorf("closed before the server confirmed these; they may or may not have been sent:\n%s", strings.Join(texts, "\n"))
}
