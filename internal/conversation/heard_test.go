package conversation

import (
	"fmt"
	"sync"
	"testing"
	"time"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// line is an event as every kind of client can tell it.
type line struct {
	offset uint64
	sender string
	text   string // of a message; otherwise empty
}

// heard is what one client has been given, in the order it came.
type heard struct {
	who string

	mu    sync.Mutex
	lines []line
	wrong []string
}

func (h *heard) add(l line) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, l)
}

func (h *heard) complain(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wrong = append(h.wrong, fmt.Sprintf(format, args...))
}

func (h *heard) last() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.lines) == 0 {
		return 0
	}
	return h.lines[len(h.lines)-1].offset
}

// check compares what was heard with the log: from its first line on it must
// be the log, each event once.
func (h *heard) check(t *testing.T, log []line) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.wrong {
		t.Errorf("%s: %s", h.who, w)
	}
	if len(h.lines) == 0 {
		t.Errorf("%s heard nothing", h.who)
		return
	}
	first := h.lines[0].offset
	if first == 0 || first > uint64(len(log)) {
		t.Errorf("%s began at offset %d of %d", h.who, first, len(log))
		return
	}
	want := log[first-1:]
	for i := range max(len(want), len(h.lines)) {
		if i >= len(want) || i >= len(h.lines) || want[i] != h.lines[i] {
			t.Errorf("%s heard %d events from offset %d, the log has %d; first difference at %d:\nheard %v\nlog   %v",
				h.who, len(h.lines), first, len(want), i, around(h.lines, i), around(want, i))
			return
		}
	}
}

func around(lines []line, i int) []line {
	return lines[min(max(0, i-1), len(lines)):min(i+3, len(lines))]
}

func toLine(e *reprisev1.Event) line {
	return line{e.GetOffset(), e.GetSender(), e.GetMessage().GetText()}
}

// sent is what clients were told is durable.
type sent struct {
	mu    sync.Mutex
	texts []string
}

func (s *sent) acknowledged(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.texts = append(s.texts, text)
}

// check looks for every acknowledged send in the log.
func (s *sent) check(t *testing.T, log []line) {
	t.Helper()
	count := make(map[string]int)
	for _, l := range log {
		count[l.text]++
	}
	for _, text := range s.texts {
		if count[text] != 1 {
			t.Errorf("acknowledged send %q is in the log %d times", text, count[text])
		}
	}
	for text, n := range count {
		if text != "" && n > 1 {
			t.Errorf("%q is in the log %d times", text, n)
		}
	}
}

// eventually waits until ok holds.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Errorf("not within %v: %s", within, what)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}
