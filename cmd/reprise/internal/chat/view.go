package chat

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
	"google.golang.org/grpc/codes"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/cmd/reprise/internal/line"
)

// The margin of a message: "15:04 ", the name, " ".
const (
	timeWidth = 6
	nameWidth = 12
	margin    = timeWidth + nameWidth + 1
	// Below this there is no margin: narrow terminals get every column.
	roomyWidth = 50
)

// rows is how an entry was last drawn, and for what.
type rows struct {
	width     int
	continued bool
	day       string
	lines     []string
}

// View implements tea.Model.
func (m *model) View() tea.View {
	input := m.input.View()
	height := max(m.height-2-lipgloss.Height(input), 1)
	content := strings.Join([]string{
		m.topBar(),
		strings.Join(m.window(height), "\n"),
		m.statusLine(),
		input,
	}, "\n")
	view := tea.NewView(content)
	view.AltScreen = true
	view.WindowTitle = "reprise: " + m.current
	if cursor := m.input.Cursor(); cursor != nil {
		cursor.Y += 2 + height
		view.Cursor = cursor
	}
	return view
}

// topBar names the room, and the rooms with something new in them.
func (m *model) topBar() string {
	left := " " + m.styles.bar.Render("no room: /join one")
	if r := m.rooms[m.current]; r != nil {
		left = " " + m.styles.bar.Render(r.name)
		if r.title != "" {
			left += m.styles.barDim.Render("  " + line.One(r.title))
		}
	}
	var others []string
	for _, name := range m.order() {
		switch r := m.rooms[name]; {
		case name == m.current:
		case r.unread > 0:
			others = append(others, m.styles.unread.Render(fmt.Sprintf("%s %d", name, r.unread)))
		default:
			others = append(others, m.styles.barDim.Render(name))
		}
	}
	return m.spread(left, strings.Join(others, "  ")+" ")
}

// statusLine says how the connection is, and who we are.
func (m *model) statusLine() string {
	right := m.styles.barDim.Render(m.user + " @ " + m.server + " ")
	if m.scroll > 0 {
		right = m.styles.unread.Render(fmt.Sprintf("↓ %d below, esc goes there ", m.scroll))
	}
	return m.spread(" "+m.connection(), right)
}

// connection is the state of the connection in a few words.
func (m *model) connection() string {
	s := m.state
	switch s.Phase {
	case reprise.Connecting, reprise.Idle:
		return m.styles.waiting.Render("◌ connecting")
	case reprise.Replaying:
		return m.styles.waiting.Render(fmt.Sprintf("◐ replaying %d of %d", s.Replayed, s.ToReplay))
	case reprise.Waiting:
		text := "○ reconnecting"
		if left := s.RetryAt.Sub(m.now); left > 0 {
			text += fmt.Sprintf(", retry in %d s", int((left+time.Second-1)/time.Second))
		}
		return m.styles.bad.Render(text) + m.styles.barDim.Render(why(s.Err))
	case reprise.Closed:
		return m.styles.bad.Render("✗ not connected") + m.styles.barDim.Render(why(s.Err))
	}
	return m.styles.good.Render("● connected") + m.styles.barDim.Render(" · "+caughtUp(s))
}

// caughtUp says what the last attach brought.
func caughtUp(s reprise.State) string {
	text := "caught up"
	if s.Outcome == reprise.OutcomeNew {
		return text
	}
	text += fmt.Sprintf(" · %d replayed", s.Replayed)
	if s.Gaps > 0 {
		text += " · " + count(s.Gaps, "gap")
	}
	if s.Rewinds > 0 {
		text += " · " + count(s.Rewinds, "rewind")
	}
	switch s.Outcome {
	case reprise.OutcomeRebuilt:
		text += " · session was rebuilt"
	case reprise.OutcomeForked:
		text += " · session was forked"
	}
	return text
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// why says in a few words why there is no connection.
func why(err error) string {
	var answer *reprise.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &answer) && answer.Code == codes.Unavailable && answer.Reason == "":
		return " · no server answers"
	case errors.As(err, &answer):
		return " · " + firstLine(answer.Message)
	}
	return " · " + firstLine(plain(err))
}

func firstLine(text string) string {
	first, _, _ := strings.Cut(line.Clean(text), "\n")
	return first
}

// spread puts one text at the left and one at the right of a line, the right
// one only if both fit.
func (m *model) spread(left, right string) string {
	room := m.width - ansi.StringWidth(left) - ansi.StringWidth(right)
	if room < 1 {
		return ansi.Truncate(left, m.width, "…")
	}
	return left + strings.Repeat(" ", room) + right
}

// window returns height lines of the current room, the newest at the bottom,
// m.scroll lines up.
func (m *model) window(height int) []string {
	var lines []string // from the bottom up
	if r := m.rooms[m.current]; r == nil && m.notice != "" {
		lines = m.paragraph("", m.styles.divider.Render("·"), m.styles.dim, m.notice)
		slices.Reverse(lines)
	} else if r != nil {
		m.walk(r, func(entry []string) bool {
			for _, l := range slices.Backward(entry) {
				lines = append(lines, l)
			}
			return len(lines) < height+m.scroll
		})
	}
	// Scrolled past the first line: stop there.
	m.scroll = max(min(m.scroll, len(lines)-height), 0)
	lines = lines[min(m.scroll, len(lines)):]
	lines = lines[:min(height, len(lines))]
	slices.Reverse(lines)
	return append(make([]string, height-len(lines), height), lines...)
}

// walk draws a room from the newest entry to the oldest, until yield returns
// false.
func (m *model) walk(r *room, yield func([]string) bool) {
	for _, p := range slices.Backward(r.pending) {
		if !yield(m.drawPending(p)) {
			return
		}
	}
	for i := range slices.Backward(r.entries) {
		if !yield(m.draw(&r.entries[i], r.entries[:i])) {
			return
		}
	}
}

// draw returns an entry's lines, drawing them anew if the width or what is
// before it has changed.
func (m *model) draw(e *entry, before []entry) []string {
	continued, day := e.follows(before)
	if d := e.drawn; d.lines == nil || d.width != m.width || d.continued != continued || d.day != day {
		lines := m.drawAnew(e, continued)
		if day != "" {
			lines = append(m.banner(m.styles.dim, day), lines...)
		}
		e.drawn = rows{width: m.width, continued: continued, day: day, lines: lines}
	}
	return e.drawn.lines
}

// follows compares an entry with what is before it: whether the same person
// goes on talking, and the date if another day has begun.
func (e *entry) follows(before []entry) (continued bool, day string) {
	if e.record.Time == nil {
		return false, ""
	}
	const date = "Monday 2 January 2006"
	day = e.record.Time.Local().Format(date)
	for i := range slices.Backward(before) {
		b := &before[i]
		if b.record.Time == nil {
			continue
		}
		if b.record.Time.Local().Format(date) == day {
			day = ""
		}
		together := i == len(before)-1 && day == "" && e.kind == said && b.kind == said
		return together && b.record.Sender == e.record.Sender && sameMinute(*b.record.Time, *e.record.Time), day
	}
	return false, day
}

func (m *model) drawAnew(e *entry, continued bool) []string {
	switch e.kind {
	case said:
		if continued {
			return m.paragraph("", m.nameStyle(e.record.Sender).Render("│"), m.styles.plain, e.record.String())
		}
		return m.paragraph(e.record.Time.Local().Format("15:04"), m.nameOf(e.record.Sender), m.styles.plain, e.record.String())
	case told:
		return m.paragraph(e.record.Time.Local().Format("15:04"), m.styles.dim.Render(sign(e.record.Type)), m.styles.dim, e.record.String())
	case warned:
		return m.banner(m.styles.warn, e.record.String())
	case divided:
		return m.banner(m.styles.divider, e.divider())
	default:
		return m.paragraph("", m.styles.divider.Render("·"), m.styles.dim, e.text)
	}
}

func (m *model) drawPending(p pending) []string {
	at, text, style := "…", line.Clean(p.text), m.styles.pendings
	switch {
	case p.err != nil:
		at, text, style = "✗", text+"\nnot sent: "+line.Clean(plain(p.err)), m.styles.bad
	case p.sent:
		at, style = "✓", m.styles.plain
	}
	return m.paragraph(at, m.nameOf(m.user), style, text)
}

func (m *model) nameOf(user string) string {
	return m.nameStyle(user).Render(ansi.Truncate(line.Clean(user), nameWidth, "…"))
}

func (m *model) nameStyle(user string) lipgloss.Style {
	if user == m.user {
		return m.styles.self
	}
	return m.styles.name(user)
}

// paragraph wraps text beside its margin: when and who.
func (m *model) paragraph(at, who string, style lipgloss.Style, text string) []string {
	first := m.styles.dim.Render(at) + strings.Repeat(" ", max(timeWidth-ansi.StringWidth(at), 0)) +
		strings.Repeat(" ", max(nameWidth-ansi.StringWidth(who), 0)) + who + " "
	rest := strings.Repeat(" ", margin)
	if m.width < roomyWidth {
		first, rest = who+" ", "  "
		if ansi.StringWidth(who) == 0 {
			first = rest
		}
	}
	wrapped := strings.Split(ansi.Wrap(text, max(m.width-max(ansi.StringWidth(first), len(rest)), 8), ""), "\n")
	for i, l := range wrapped {
		prefix := rest
		if i == 0 {
			prefix = first
		}
		wrapped[i] = prefix + style.Render(l)
	}
	return wrapped
}

// banner draws text in the middle of a line across the room, or of several if
// it is long.
func (m *model) banner(style lipgloss.Style, text string) []string {
	lines := strings.Split(ansi.Wrap(text, max(m.width-6, 8), ""), "\n")
	for i, l := range lines {
		l = " " + l + " "
		left := max((m.width-ansi.StringWidth(l))/2, 0)
		right := max(m.width-left-ansi.StringWidth(l), 0)
		lines[i] = style.Render(strings.Repeat("─", left) + l + strings.Repeat("─", right))
	}
	return lines
}

func (e *entry) divider() string {
	what := fmt.Sprintf("%d new", e.count)
	if e.first {
		return what + " since you were here"
	}
	return what + " while disconnected"
}

func sign(typ string) string {
	switch typ {
	case "joined":
		return "→"
	case "left":
		return "←"
	}
	return "✶"
}

func sameMinute(a, b time.Time) bool {
	return a.Truncate(time.Minute).Equal(b.Truncate(time.Minute))
}
