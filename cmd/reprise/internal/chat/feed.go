package chat

import (
	"context"
	"errors"

	tea "charm.land/bubbletea/v2"

	reprise "github.com/reprise-chat/reprise/client"
)

// What the screen is told, besides the keys.
type (
	eventMsg      reprise.Event
	gapMsg        reprise.Gap
	rewindMsg     reprise.Rewind
	roomMsg       reprise.RoomState
	roomClosedMsg reprise.RoomClosed
	caughtUpMsg   reprise.CaughtUp
	stateMsg      reprise.State

	// sentMsg answers a message of ours.
	sentMsg struct {
		room     string
		clientID string
		err      error
	}
	// historyMsg is a page of older events of a room, or why there is none.
	historyMsg struct {
		room string
		page reprise.Page
		err  error
	}
	// noteMsg are words to show in a room.
	noteMsg struct {
		room string
		text string
	}
	// enterMsg switches to a room that was joined.
	enterMsg struct{ room string }
	// rejoinedMsg says whether a room could be joined again.
	rejoinedMsg struct {
		room string
		err  error
	}
	// tickMsg lets a countdown go on.
	tickMsg struct{}
	// endedMsg says that Run has ended by itself.
	endedMsg struct{ err error }
)

var errClosing = errors.New("the chat is closing")

// feed is the handler of the client: it hands everything to the screen, which
// takes it before the next one comes. So an event counts as handled when it is
// on the screen, and one that comes while the chat is closing comes again.
type feed struct {
	program *tea.Program
	closed  <-chan struct{} // when the screen takes nothing any more
}

func (f feed) put(msg tea.Msg) error {
	f.program.Send(msg)
	select {
	case <-f.closed:
		return errClosing
	default:
		return nil
	}
}

// HandleEvent implements reprise.Handler.
func (f feed) HandleEvent(_ context.Context, e reprise.Event) error { return f.put(eventMsg(e)) }

// HandleGap implements reprise.Handler.
func (f feed) HandleGap(_ context.Context, g reprise.Gap) error { return f.put(gapMsg(g)) }

// HandleRewind implements reprise.Handler.
func (f feed) HandleRewind(_ context.Context, r reprise.Rewind) error { return f.put(rewindMsg(r)) }

// HandleRoom implements reprise.RoomHandler.
func (f feed) HandleRoom(_ context.Context, s reprise.RoomState) error { return f.put(roomMsg(s)) }

// HandleRoomClosed implements reprise.RoomHandler.
func (f feed) HandleRoomClosed(_ context.Context, c reprise.RoomClosed) error {
	return f.put(roomClosedMsg(c))
}

// HandleCaughtUp implements reprise.CaughtUpHandler.
func (f feed) HandleCaughtUp(_ context.Context, c reprise.CaughtUp) error {
	return f.put(caughtUpMsg(c))
}
