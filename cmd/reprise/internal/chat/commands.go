package chat

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/cmd/reprise/internal/line"
)

const help = `/join ROOM    enter a room; an open one is made if there is none
/leave [ROOM] end your membership
/who          who is a member
/rooms        your rooms
/quit         close the chat; your place is kept (ctrl+c does the same)
//text        say something that starts with /
enter sends, alt+enter makes a new line; tab goes to the next room;
page up and down scroll, and fetch what is older; esc goes to the newest
… is on its way, ✓ is on the server's disk, ✗ was refused`

// command carries out what follows a "/".
func (m *model) command(words string) tea.Cmd {
	name, argument, _ := strings.Cut(strings.TrimSpace(words), " ")
	argument = strings.TrimSpace(argument)
	switch name {
	case "help", "?":
		m.note(m.current, help)
	case "quit", "q", "exit":
		return tea.Quit
	case "rooms":
		m.note(m.current, "your rooms: "+strings.Join(m.order(), ", "))
	case "who":
		return m.who(m.current)
	case "join":
		return m.join(argument)
	case "leave":
		if argument == "" {
			argument = m.current
		}
		return m.leave(argument)
	default:
		m.note(m.current, fmt.Sprintf("there is no /%s; /help says what there is", line.Clean(name)))
	}
	return nil
}

// ask runs do away from the screen, for at most ten seconds, and shows what it
// says, or how it failed, in the current room.
func (m *model) ask(what string, do func(context.Context) (tea.Msg, error)) tea.Cmd {
	room := m.current
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.ctx, 10*time.Second)
		defer cancel()
		msg, err := do(ctx)
		if err != nil {
			return noteMsg{room: room, text: fmt.Sprintf("cannot %s: %s", what, plain(err))}
		}
		return msg
	}
}

func (m *model) who(name string) tea.Cmd {
	return m.ask("list the members", func(ctx context.Context) (tea.Msg, error) {
		const most = 200
		var users []string
		for member, err := range m.client.ListMembers(ctx, name) {
			if err != nil {
				return nil, err
			}
			if len(users) == most {
				users = append(users, "and more")
				break
			}
			users = append(users, line.Clean(member.GetUser()))
		}
		return noteMsg{room: name, text: fmt.Sprintf("members of %s: %s", name, strings.Join(users, ", "))}, nil
	})
}

func (m *model) join(name string) tea.Cmd {
	if name == "" {
		m.note(m.current, "/join needs the name of a room")
		return nil
	}
	if slices.Contains(m.order(), name) {
		return m.enter(name)
	}
	return m.ask("join "+name, func(ctx context.Context) (tea.Msg, error) {
		_, err := m.client.Join(ctx, name, 0)
		return enterMsg{room: name}, err
	})
}

// rejoin joins a room again that is shown.
func (m *model) rejoin(name string) tea.Cmd {
	return m.ask("join "+name, func(ctx context.Context) (tea.Msg, error) {
		_, err := m.client.Join(ctx, name, 0)
		return rejoinedMsg{room: name, err: err}, nil
	})
}

func (m *model) leave(name string) tea.Cmd {
	return m.ask("leave "+name, func(ctx context.Context) (tea.Msg, error) {
		if err := m.client.Leave(ctx, name); err != nil {
			return nil, err
		}
		return roomClosedMsg(reprise.RoomClosed{Room: name, By: m.user}), nil
	})
}
