package chat

import (
	"context"
	"errors"
	"time"

	tea "charm.land/bubbletea/v2"

	reprise "github.com/reprise-chat/reprise/client"
)

// How much of what is older is asked for at a time: a page of historyPage
// events, and as long as there are fewer than historyMessages messages in what
// came, further ones of historyMore events, historyPages in all.
const (
	historyPage     = 50
	historyMore     = 1000
	historyPages    = 10
	historyMessages = 20
)

// history asks for a room's events before the oldest one shown, unless nobody
// looks, or they are on the way, or there are none.
func (m *model) history(name string) tea.Cmd {
	r := m.rooms[name]
	if r == nil || !r.started || r.loading || r.complete {
		return nil
	}
	r.loading = true
	before := r.oldest()
	if before <= 1 {
		r.complete, r.loading = true, false
		return nil
	}
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.ctx, 10*time.Second)
		defer cancel()
		page, err := older(ctx, before, func(ctx context.Context, r reprise.Range) (reprise.Page, error) {
			return m.client.ListEvents(ctx, name, r)
		})
		return historyMsg{room: name, page: page, err: err}
	}
}

// older returns what is before an offset: a page that has something that was
// said, if need be after as many events as historyPages pages hold. In a room
// where everybody comes and goes a page of events may have no message at all.
func older(ctx context.Context, before uint64, list func(context.Context, reprise.Range) (reprise.Page, error)) (reprise.Page, error) {
	var all reprise.Page
	for n, limit := 0, historyPage; n < historyPages; n, limit = n+1, historyMore {
		page, err := list(ctx, reprise.Range{Before: before, Limit: limit, Newest: true})
		if err != nil {
			return all, err
		}
		page.Events = append(page.Events, all.Events...)
		all = page
		if !page.More || len(page.Events) == 0 || messages(page.Events) >= historyMessages {
			break
		}
		before = page.Events[0].Offset
	}
	return all, nil
}

// messages counts the messages among events.
func messages(events []reprise.Event) (n int) {
	for _, e := range events {
		if e.Text() != "" {
			n++
		}
	}
	return n
}

func (m *model) prepend(h historyMsg) {
	r := m.rooms[h.room]
	switch {
	case r == nil:
	case h.err == nil:
		r.prepend(h.page)
	default:
		r.loading = false
		if !errors.Is(h.err, context.Canceled) {
			m.note(h.room, "older messages did not come: "+plain(h.err))
		}
	}
}
