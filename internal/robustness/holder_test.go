package robustness

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	reprise "github.com/reprise-chat/reprise/client"
	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/internal/history"
	"github.com/reprise-chat/reprise/internal/history/witness"
)

const (
	holderEnv = "REPRISE_HOLDER"
	// acknowledgement is an Ack by the session and attach number: a kind of
	// record that the checker does not know and these tests look at.
	acknowledgement history.Kind = "ack"
	// refusals is how often a holder that was taken over tries all the same.
	refusals = 20
	// pace is how often it publishes.
	pace = 20 * time.Millisecond
)

// task is what a holder process is to do.
type task struct {
	Address, User, Room, Positions string
	// Stubborn holders speak by call as well, with the attach number that they
	// once had, and do not care what the stream said.
	Stubborn bool
}

// holder is a client of the SDK in a process of its own, which publishes,
// reads and can be stopped. What happens to it is written down, by a clock
// that all processes share.
type holder struct {
	t        *testing.T
	name     string
	cmd      *exec.Cmd
	goodbye  io.Closer // its standard input: it ends when that does
	said     output
	finished chan struct{}

	mu      sync.Mutex
	records []history.Record
	changed chan struct{} // closed and made anew at each record
}

// startHolder starts one, whose records are to be on a trace's clock. It ends
// by itself when it was fenced, else by stop.
func startHolder(t *testing.T, trace *history.Trace, do task) *holder {
	t.Helper()
	b, err := json.Marshal(do)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h := &holder{t: t, name: do.User, finished: make(chan struct{}), changed: make(chan struct{})}
	h.cmd = exec.Command(os.Args[0], "-test.run", "^TestHolderProcess$")
	h.cmd.Env = append(os.Environ(), holderEnv+"="+string(b))
	h.cmd.ExtraFiles = []*os.File{w}
	h.cmd.Stdout, h.cmd.Stderr = &h.said, &h.said
	if h.goodbye, err = h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go h.follow(r, zeroOf(trace))
	t.Cleanup(func() {
		_ = h.cmd.Process.Kill()
		<-h.finished
		_ = h.cmd.Wait() // if nobody has
	})
	return h
}

// follow reads records until the process has ended. Zero is where the records'
// times are counted from, on the clock of all processes.
func (h *holder) follow(r io.ReadCloser, zero int64) {
	defer close(h.finished)
	defer r.Close()
	lines := bufio.NewScanner(r)
	lines.Scan()
	theirs, err := strconv.ParseInt(lines.Text(), 10, 64)
	if err != nil {
		h.t.Errorf("%s does not say what its clock is: %v", h.name, err)
		return
	}
	for lines.Scan() {
		var rec history.Record
		if err := json.Unmarshal(lines.Bytes(), &rec); err != nil {
			return // it was killed in the middle of a line
		}
		rec.T += theirs - zero
		h.mu.Lock()
		h.records = append(h.records, rec)
		close(h.changed)
		h.changed = make(chan struct{})
		h.mu.Unlock()
	}
}

// all returns the records so far.
func (h *holder) all() []history.Record {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.records[:len(h.records):len(h.records)]
}

// await waits until a record, or one before it, is what is waited for.
func (h *holder) await(what string, is func(history.Record) bool) {
	h.t.Helper()
	h.awaitAfter(0, 1, what, is)
}

// awaitMore waits until n further records are what is waited for.
func (h *holder) awaitMore(what string, n int, is func(history.Record) bool) {
	h.t.Helper()
	h.awaitAfter(len(h.all()), n, what, is)
}

func (h *holder) awaitAfter(seen, n int, what string, is func(history.Record) bool) {
	h.t.Helper()
	timeout := time.After(settleTimeout)
	for {
		h.mu.Lock()
		records, changed := h.records, h.changed
		h.mu.Unlock()
		for ; seen < len(records); seen++ {
			if is(records[seen]) {
				n--
			}
		}
		if n <= 0 {
			return
		}
		select {
		case <-changed:
		case <-h.finished:
			h.t.Fatalf("%s has ended before %s", h.name, what)
		case <-timeout:
			h.t.Fatalf("%s: no %s in %v", h.name, what, settleTimeout)
		}
	}
}

func (h *holder) signal(s syscall.Signal) {
	h.t.Helper()
	if err := h.cmd.Process.Signal(s); err != nil {
		h.t.Fatal(err)
	}
}

// wait waits until it ends by itself.
func (h *holder) wait() {
	h.t.Helper()
	select {
	case <-h.finished:
	case <-time.After(30 * time.Second):
		h.t.Fatalf("%s does not end", h.name)
	}
	if err := h.cmd.Wait(); err != nil {
		h.t.Errorf("%s: %v\n%s", h.name, err, &h.said)
	}
}

// stop has it say goodbye.
func (h *holder) stop() {
	h.t.Helper()
	h.goodbye.Close()
	h.wait()
}

// zeroOf returns where a trace's times are counted from, on the clock that the
// processes of a machine share. It is right to some microseconds, which is less
// than a call takes, or what one process saw would seem to come before what
// caused it in another.
func zeroOf(trace *history.Trace) (zero int64) {
	best := int64(math.MaxInt64)
	for range 1000 {
		before := monotonic()
		now := trace.Now()
		if took := monotonic() - before; took < best {
			best, zero = took, before+took/2-now
		}
	}
	return zero
}

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // fails for a clock that does not exist
	return ts.Nano()
}

// zombie is what runs in a holder's process: it may have been taken over
// without knowing it.
type zombie struct {
	t        *testing.T
	task     task
	tag      string // of its names, which differ from those of its successors
	trace    *history.Trace
	witness  *witness.Client
	sdk      *reprise.Client
	attached chan struct{} // closed at the first Welcome
}

// TestHolderProcess is a holder, in the process that startHolder starts.
func TestHolderProcess(t *testing.T) {
	given := os.Getenv(holderEnv)
	if given == "" {
		t.Skip("a process that other tests start")
	}
	z := &zombie{t: t, attached: make(chan struct{})}
	if err := json.Unmarshal([]byte(given), &z.task); err != nil {
		t.Fatal(err)
	}
	out := os.NewFile(3, "records")
	z.trace = history.NewTrace(out)
	fmt.Fprintln(out, zeroOf(z.trace))
	z.tag = filepath.Base(z.task.Positions)
	z.witness = witness.New(z.task.User+"/"+z.tag, z.trace, nil)

	store, err := reprise.OpenFile(z.task.Positions)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	z.sdk, err = reprise.New(z.config(store))
	if err != nil {
		t.Fatal(err)
	}
	defer z.sdk.Close()
	if _, err := z.sdk.Join(t.Context(), z.task.Room, 0); err != nil {
		t.Fatal(err)
	}
	z.run()
}

func (z *zombie) config(store reprise.PositionStore) reprise.Config {
	var once sync.Once
	return reprise.Config{
		Logger:    slog.New(slog.DiscardHandler),
		Addresses: []string{z.task.Address}, Positions: store,
		Token:       func(context.Context) (string, error) { return "dev:" + z.task.User, nil },
		DialOptions: []grpc.DialOption{grpc.WithStreamInterceptor(z.witness.Observe)},
		OnState: func(s reprise.State) {
			if s.Attach > 0 {
				once.Do(func() { close(z.attached) })
			}
		},
	}
}

// run publishes until it is told to stop or is fenced, whatever comes first.
func (z *zombie) run() {
	ctx, cancel := context.WithCancel(z.t.Context())
	defer cancel()
	var tries sync.WaitGroup
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	tries.Go(func() { z.publish(ctx) })
	fenced := make(chan struct{})
	if z.task.Stubborn {
		tries.Go(func() { z.insist(fenced) })
	}
	err := z.sdk.Run(ctx, z.witness)
	close(fenced)
	if z.task.Stubborn && !errors.Is(err, reprise.ErrFenced) || !z.task.Stubborn && err != nil {
		z.t.Errorf("Run: %v", err)
	}
	cancel()
	tries.Wait()
}

// publish sends through the SDK.
func (z *zombie) publish(ctx context.Context) {
	<-z.attached
	pace := time.NewTicker(pace)
	defer pace.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		<-pace.C
		id := fmt.Sprintf("%s-%d", z.tag, n)
		end := begin(z.trace, z.task, id, z.via())
		receipt, err := z.sdk.Send(ctx, z.task.Room, "text of "+id, reprise.WithClientID(id))
		if err != nil {
			end(history.Unknown, "", 0)
			continue
		}
		end(history.OK, receipt.Incarnation, receipt.Offset)
	}
}

// via is the attachment to speak for, if the checker is to hold it to that: one
// that is never taken over may change it meanwhile.
func (z *zombie) via() *reprisev1.Via {
	if !z.task.Stubborn {
		return nil
	}
	s := z.sdk.State()
	return &reprisev1.Via{SessionId: s.SessionID, Attach: s.Attach}
}

// begin writes down that something is published; end says how that ended.
func begin(trace *history.Trace, do task, id string, via *reprisev1.Via) (end func(ph history.Phase, inc string, off uint64)) {
	r := history.Record{
		P: do.User + "/" + id, K: history.Publish, Ph: history.Call, Room: do.Room, ID: do.User + "/" + id,
		Session: via.GetSessionId(), Attach: via.GetAttach(),
	}
	trace.Add(r)
	return func(ph history.Phase, inc string, off uint64) {
		r.Ph, r.Inc, r.Off = ph, inc, off
		trace.Add(r)
	}
}

// insist publishes and acknowledges by call, for the attachment that there was
// in the beginning, and does not leave off at once when it was fenced.
func (z *zombie) insist(fenced <-chan struct{}) {
	<-z.attached
	conn, err := grpc.NewClient(z.task.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		z.t.Error(err)
		return
	}
	defer conn.Close()
	chat, via := reprisev1.NewChatServiceClient(conn), z.via()
	ctx := metadata.AppendToOutgoingContext(z.t.Context(), "authorization", "Bearer dev:"+z.task.User)
	var at *reprisev1.Position
	pace := time.NewTicker(pace)
	defer pace.Stop()
	for n, more := 0, refusals; more > 0; n++ {
		<-pace.C
		select {
		case <-fenced:
			more--
		default:
		}
		id := fmt.Sprintf("%s-call-%d", z.tag, n)
		end := begin(z.trace, z.task, id, via)
		sent, err := chat.SendMessage(ctx, &reprisev1.SendMessageRequest{Via: via, Room: z.task.Room, ClientId: id, Text: "text of " + id})
		if err == nil {
			at = &reprisev1.Position{Room: sent.GetRoom(), Incarnation: sent.GetIncarnation()}
		}
		z.answered(err, func(ph history.Phase) { end(ph, sent.GetIncarnation(), sent.GetOffset()) })

		off, _ := z.witness.Holds(z.task.Room)
		if at == nil || off == 0 {
			continue
		}
		at.Offset = off
		r := history.Record{P: z.tag, K: acknowledgement, Ph: history.Call, Session: via.GetSessionId(), Attach: via.GetAttach(), Room: z.task.Room, Off: off}
		z.trace.Add(r)
		_, err = chat.Ack(ctx, &reprisev1.AckRequest{Via: via, Positions: []*reprisev1.Position{at}})
		z.answered(err, func(ph history.Phase) { r.Ph = ph; z.trace.Add(r) })
	}
}

// answered says how a call ended.
func (z *zombie) answered(err error, end func(history.Phase)) {
	switch {
	case err == nil:
		end(history.OK)
	case reasonOf(err) == "FENCED":
		end(history.Fail)
	default:
		end(history.Unknown)
		z.t.Errorf("a holder that was taken over is told %v", err)
	}
}

func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}
