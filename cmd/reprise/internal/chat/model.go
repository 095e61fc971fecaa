package chat

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"charm.land/bubbles/v2/key"
	"charm.land/bubbles/v2/textarea"
	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	reprise "github.com/reprise-chat/reprise/client"
)

// model is the screen. Bubble Tea calls its methods one at a time.
type model struct {
	// set at the start
	ctx    context.Context // ends with the chat; for what the screen asks the server for
	client *reprise.Client
	outbox chan<- outgoing
	user   string
	server string
	styles styles

	// what is shown
	rooms   map[string]*room
	current string
	home    string // the room named on the command line
	notice  string // words of the chat itself while there is no room to show them in
	state   reprise.State
	now     time.Time
	ticking bool
	ended   error // why Run ended, while the screen is still up

	// the terminal
	input         textarea.Model
	width, height int
	scroll        int // lines that the newest one is below the screen
}

func newModel(ctx context.Context, client *reprise.Client, outbox chan<- outgoing, o Options) *model {
	input := textarea.New()
	input.Prompt = "› "
	input.ShowLineNumbers = false
	input.DynamicHeight, input.MinHeight, input.MaxHeight = true, 1, 6
	input.MaxContentHeight = 10000 // a long paste is scrolled, not cut
	input.CharLimit = 0            // the server says what is too long
	input.Placeholder = "say something, or /help"
	input.KeyMap.InsertNewline = key.NewBinding(key.WithKeys("alt+enter", "ctrl+j"))
	input.SetVirtualCursor(false)
	m := &model{
		ctx: ctx, client: client, outbox: outbox, user: o.User, server: o.Server,
		rooms: make(map[string]*room), current: o.Room, home: o.Room, now: time.Now(), input: input,
		width: 80, height: 24,
	}
	m.setStyles(true)
	m.room(o.Room)
	return m
}

func (m *model) setStyles(dark bool) {
	m.styles = newStyles(dark)
	s := textarea.DefaultStyles(dark)
	s.Focused.CursorLine, s.Focused.Base = lipgloss.NewStyle(), lipgloss.NewStyle()
	s.Focused.Prompt, s.Focused.Placeholder = m.styles.prompt, m.styles.dim
	m.input.SetStyles(s)
}

// Init implements tea.Model.
func (m *model) Init() tea.Cmd {
	return tea.Batch(m.input.Focus(), tea.RequestBackgroundColor, m.history(m.current))
}

// Update implements tea.Model.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = max(msg.Width, 1), max(msg.Height, 1)
		m.input.SetWidth(m.width)
		return m, nil
	case tea.BackgroundColorMsg:
		m.setStyles(msg.IsDark())
		return m, nil
	case tea.KeyPressMsg:
		if cmd, ok := m.key(msg); ok {
			return m, cmd
		}
	default:
		if cmd, ok := m.told(msg); ok {
			return m, cmd
		}
	}
	var cmd tea.Cmd
	m.input, cmd = m.input.Update(msg)
	return m, cmd
}

// told takes what the client or the server says.
func (m *model) told(msg tea.Msg) (tea.Cmd, bool) {
	switch msg := msg.(type) {
	case eventMsg:
		m.event(reprise.Event(msg))
	case gapMsg:
		m.keepPlace(m.room(msg.Room), func(r *room) { r.gap(reprise.Gap(msg)) })
	case rewindMsg:
		m.keepPlace(m.room(msg.Room), func(r *room) { r.rewind(reprise.Rewind(msg)) })
	case roomMsg:
		return m.begin(reprise.RoomState(msg)), true
	case roomClosedMsg:
		return m.lose(reprise.RoomClosed(msg)), true
	case caughtUpMsg:
		m.caughtUp(msg.Room)
	case stateMsg:
		return m.connectionChanged(reprise.State(msg)), true
	case tickMsg:
		m.ticking, m.now = false, time.Now()
		return m.tick(), true
	case sentMsg:
		m.room(msg.room).settle(msg.clientID, msg.err)
	case historyMsg:
		m.prepend(msg)
	case noteMsg:
		m.note(msg.room, msg.text)
	case enterMsg:
		return m.enter(msg.room), true
	case rejoinedMsg:
		m.rejoined(msg)
	case endedMsg:
		m.ended = msg.err
	default:
		return nil, false
	}
	return nil, true
}

// begin takes where delivery of a room starts.
func (m *model) begin(s reprise.RoomState) tea.Cmd {
	r := m.room(s.Room.GetName())
	r.title = s.Room.GetTitle()
	r.begin(s.Position.Offset)
	if r.name != m.current {
		return nil
	}
	return m.history(r.name)
}

func (m *model) event(e reprise.Event) {
	r := m.room(e.Room)
	m.keepPlace(r, func(r *room) { r.add(e, e.Sender == m.user) })
	if r.name != m.current && e.Text() != "" && e.Sender != m.user {
		r.unread++
	}
}

// keepPlace changes a room without moving what a person who has scrolled up is
// reading.
func (m *model) keepPlace(r *room, change func(*room)) {
	if r.name != m.current || m.scroll == 0 {
		change(r)
		return
	}
	before := m.lines(r)
	change(r)
	m.scroll = max(m.scroll+m.lines(r)-before, 0)
}

// lines counts what a room has to show.
func (m *model) lines(r *room) int {
	n := 0
	m.walk(r, func(entry []string) bool { n += len(entry); return true })
	return n
}

func (m *model) caughtUp(name string) {
	if name != "" {
		m.room(name).caughtUp()
		return
	}
	for _, r := range m.rooms {
		r.caughtUp()
	}
}

func (m *model) connectionChanged(s reprise.State) tea.Cmd {
	m.state, m.now = s, time.Now()
	return m.tick()
}

// tick keeps a countdown going while there is one.
func (m *model) tick() tea.Cmd {
	if m.ticking || m.state.Phase != reprise.Waiting {
		return nil
	}
	m.ticking = true
	return tea.Tick(time.Second, func(time.Time) tea.Msg { return tickMsg{} })
}

// room returns a room, making it if it is new here.
func (m *model) room(name string) *room {
	r := m.rooms[name]
	if r == nil {
		r = newRoom(name)
		m.rooms[name] = r
	}
	return r
}

// order is the order in which rooms are shown and stepped through.
func (m *model) order() []string { return slices.Sorted(maps.Keys(m.rooms)) }

// enter shows a room.
func (m *model) enter(name string) tea.Cmd {
	m.current, m.scroll, m.notice = name, 0, ""
	m.room(name).unread = 0
	return m.history(name)
}

// step shows the next room, or with -1 the one before.
func (m *model) step(by int) tea.Cmd {
	names := m.order()
	at := slices.Index(names, m.current)
	if len(names) == 0 {
		return nil
	}
	return m.enter(names[((at+by)%len(names)+len(names))%len(names)])
}

// lose drops a room that we are no longer a member of. Where no record says
// why, as after the server's data were wiped, the chat asks to be let in again
// to the room that it was started for.
func (m *model) lose(c reprise.RoomClosed) tea.Cmd {
	if c.Reason == "" && c.By == "" && c.Room == m.home {
		was := m.rooms[c.Room]
		r := newRoom(c.Room) // what was shown is of another log
		if was != nil {
			r.pending, r.held = was.pending, was.held
		}
		r.joining = true
		m.rooms[c.Room] = r
		m.note(c.Room, "the server does not know that you were in "+c.Room+": joining it again")
		return m.rejoin(c.Room)
	}
	delete(m.rooms, c.Room)
	if c.Room != m.current {
		return nil
	}
	m.current, m.scroll = "", 0
	if names := m.order(); len(names) > 0 {
		m.current = names[0]
		m.rooms[m.current].unread = 0
	}
	m.note(m.current, "you are no longer in "+c.Room)
	return nil
}

// rejoined sends what was entered while the room was joined again, or says that
// it cannot be sent.
func (m *model) rejoined(msg rejoinedMsg) {
	r := m.room(msg.room)
	held := r.held
	r.joining, r.held = false, nil
	if msg.err != nil {
		m.note(msg.room, "cannot join "+msg.room+": "+plain(msg.err))
	}
	for _, out := range held {
		switch err := msg.err; {
		case err != nil:
			r.settle(out.clientID, err)
		case !m.send(out):
			r.settle(out.clientID, errBusy)
		}
	}
}

// errBusy: the outbox is full.
var errBusy = errors.New("too many messages wait to be sent")

// send puts a message into the outbox, if there is room.
func (m *model) send(out outgoing) bool {
	select {
	case m.outbox <- out:
		return true
	default:
		return false
	}
}

// note shows words of the chat itself in a room, or, where there is no room,
// in its place.
func (m *model) note(name, text string) {
	if r := m.rooms[name]; r != nil {
		m.keepPlace(r, func(r *room) { r.note(text) })
	} else if m.rooms[m.current] == nil {
		m.notice = text
	}
}

// key takes a key, and says whether it was one of ours and not the input's.
func (m *model) key(k tea.KeyPressMsg) (tea.Cmd, bool) {
	page := max(m.height-4, 1)
	switch k.Keystroke() {
	case "ctrl+c":
		return tea.Quit, true
	case "ctrl+d":
		if m.input.Value() == "" {
			return tea.Quit, true
		}
		return nil, false
	case "enter":
		return m.entered(), true
	case "tab", "ctrl+n":
		return m.step(1), true
	case "shift+tab", "ctrl+p":
		return m.step(-1), true
	case "pgup":
		return m.scrollBy(page), true
	case "pgdown":
		return m.scrollBy(-page), true
	case "up", "down":
		if m.input.LineCount() > 1 {
			return nil, false
		}
		if k.Keystroke() == "up" {
			return m.scrollBy(1), true
		}
		return m.scrollBy(-1), true
	case "esc":
		m.scroll = 0
		return nil, true
	}
	return nil, false
}

// scrollBy moves up, or with a negative number down, and asks for older events
// near the top.
func (m *model) scrollBy(lines int) tea.Cmd {
	r := m.rooms[m.current]
	if r == nil {
		return nil
	}
	top := max(m.lines(r)-(m.height-2-m.input.Height()), 0)
	m.scroll = max(min(m.scroll+lines, top), 0)
	if m.scroll < top || lines < 0 {
		return nil
	}
	return m.history(m.current)
}

// entered takes what was typed.
func (m *model) entered() tea.Cmd {
	text := strings.TrimRight(m.input.Value(), "\n ")
	if text == "" {
		return nil
	}
	command, isCommand := strings.CutPrefix(text, "/")
	if isCommand && !strings.HasPrefix(command, "/") {
		m.input.Reset()
		return m.command(command)
	}
	if isCommand {
		text = command // "//x" says "/x"
	}
	r := m.rooms[m.current]
	if r == nil {
		m.note("", "there is no room to say it in, so it stays below: /join ROOM enters one")
		return nil
	}
	out := outgoing{room: r.name, clientID: newClientID(), text: text}
	switch {
	case r.joining && len(r.held) < outboxSize:
		r.held = append(r.held, out)
	case r.joining || !m.send(out):
		// Keep what was typed: nothing is lost, it can be entered again later.
		m.note(m.current, errBusy.Error()+": this one stays in the input")
		return nil
	}
	m.input.Reset()
	m.scroll = 0
	r.pending = append(r.pending, pending{clientID: out.clientID, text: text})
	return nil
}
