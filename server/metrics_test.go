package server_test

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc/codes"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
	"github.com/reprise-chat/reprise/server/internal/store/pebble"
)

// get returns the status and the body of a page of the HTTP port.
func (n *node) get(path string) (int, string) {
	n.t.Helper()
	out, err := http.Get(n.web + path)
	if err != nil {
		n.t.Fatal(err)
	}
	defer out.Body.Close()
	body, err := io.ReadAll(out.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return out.StatusCode, string(body)
}

// figures returns this server's own metrics, each with its labels.
func (n *node) figures() map[string]float64 {
	n.t.Helper()
	_, body := n.get("/metrics")
	figures := make(map[string]float64)
	for lines := bufio.NewScanner(strings.NewReader(body)); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if !ok || !strings.HasPrefix(name, "reprise_") {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			n.t.Fatalf("%q: %v", lines.Text(), err)
		}
		figures[name] = v
	}
	return figures
}

// TestMetricsFromTheStart: every metric that there will ever be, with each value
// of its labels, is there before anything has happened, at zero.
func TestMetricsFromTheStart(t *testing.T) {
	n := serve(t)
	figures := n.figures()
	want := []string{
		`reprise_attaches_total{outcome="OUTCOME_EXACT"}`,
		`reprise_attaches_total{outcome="OUTCOME_FORKED"}`,
		`reprise_attaches_total{outcome="OUTCOME_NEW"}`,
		`reprise_attaches_total{outcome="OUTCOME_REBUILT"}`,
		`reprise_attaches_total{outcome="OUTCOME_WITH_GAPS"}`,
		`reprise_delivered_bytes_total`,
		`reprise_delivered_events_total{kind="live"}`,
		`reprise_delivered_events_total{kind="replay"}`,
		`reprise_gap_offsets_total{reason="GAP_REASON_FILTERED"}`,
		`reprise_gap_offsets_total{reason="GAP_REASON_NOT_VISIBLE"}`,
		`reprise_gap_offsets_total{reason="GAP_REASON_POSITION_UNKNOWN"}`,
		`reprise_gap_offsets_total{reason="GAP_REASON_REPLAY_LIMIT"}`,
		`reprise_gap_offsets_total{reason="GAP_REASON_RETENTION"}`,
		`reprise_gaps_total{reason="GAP_REASON_FILTERED"}`,
		`reprise_gaps_total{reason="GAP_REASON_NOT_VISIBLE"}`,
		`reprise_gaps_total{reason="GAP_REASON_POSITION_UNKNOWN"}`,
		`reprise_gaps_total{reason="GAP_REASON_REPLAY_LIMIT"}`,
		`reprise_gaps_total{reason="GAP_REASON_RETENTION"}`,
		`reprise_publishes_total{result="duplicate"}`,
		`reprise_publishes_total{result="fenced"}`,
		`reprise_publishes_total{result="not_found"}`,
		`reprise_publishes_total{result="ok"}`,
		`reprise_publishes_total{result="refused"}`,
		`reprise_rewinds_total`,
		`reprise_rooms_unavailable_total`,
		`reprise_streams`,
		`reprise_writes_refused`,
	}
	if got := slices.Sorted(maps.Keys(figures)); !slices.Equal(got, want) {
		t.Errorf("metrics at the start:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for name, value := range figures {
		if value != 0 {
			t.Errorf("%s is %v before anything has happened", name, value)
		}
	}
	// Nothing appears later.
	n.join("alice", "lobby")
	n.say("alice", "lobby", "hello")
	n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	if got := slices.Sorted(maps.Keys(n.figures())); !slices.Equal(got, want) {
		t.Errorf("metrics later:\n%s", strings.Join(got, "\n"))
	}
	if got := n.figures()[`reprise_publishes_total{result="ok"}`]; got != 1 {
		t.Errorf("%v publishes", got)
	}
}

// TestReadyWithAFullDisk: a server that refuses writes serves reads and resumes,
// and is ready; that writes are refused is a metric and a log line, at both
// edges.
func TestReadyWithAFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	const gib = 1 << 30
	free := func(n uint64) { mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: n, TotalBytes: 10 * gib}) }
	free(9 * gib)
	log := new(lockedBuffer)
	st, err := pebble.Open("data", pebble.Options{FS: mem, Reserve: gib, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	n := serve(t, func(o *server.Options) { o.Store = st })
	n.join("alice", "lobby")
	first := n.open("alice", &reprisev1.OpenRequest{})
	welcome := first.caughtUp().welcome

	free(gib / 2)
	eventually(t, "the metric says that writes are refused", func() bool { return n.figures()["reprise_writes_refused"] == 1 })
	_, err = n.SendMessage(as(t, "alice"), &reprisev1.SendMessageRequest{Room: "lobby", Text: "refused"})
	refused(t, err, codes.ResourceExhausted, "DISK_RESERVE")
	if code, body := n.get("/readyz"); code != http.StatusOK {
		t.Errorf("/readyz: %d %s", code, body)
	}
	n.resume("alice", &reprisev1.ResumeRequest{SessionId: welcome.GetSessionId(), ResumeKey: welcome.GetResumeKey()}).caughtUp()

	free(9 * gib)
	eventually(t, "the metric says that writes are taken", func() bool { return n.figures()["reprise_writes_refused"] == 0 })
	n.say("alice", "lobby", "taken")
	for _, line := range []string{"level=ERROR msg=\"store: free disk space is below the reserve", "level=INFO msg=\"store: free disk space is above the reserve again"} {
		if got := strings.Count(log.String(), line); got != 1 {
			t.Errorf("%d times in the log: %s", got, line)
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
