package conversation

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// curl is a person with grpcurl: one process a call, and a running Resume.
type curl struct {
	heard
	address, room string

	// Owned by the goroutine that listens.
	session, key string
	attach       uint64
	position     *reprisev1.Position
	unacked      int

	listening sync.WaitGroup
}

func newCurl(t *testing.T, address, room string) *curl {
	t.Helper()
	c := &curl{heard: heard{who: "grpcurl"}, address: address, room: room}
	if out, err := c.call(t.Context(), "JoinRoom", map[string]any{"room": room}); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithCancel(context.Background())
	opened := make(chan struct{})
	c.listening.Go(func() { c.listen(ctx, opened) })
	t.Cleanup(func() {
		cancel()
		c.listening.Wait()
	})
	select {
	case <-opened:
	case <-time.After(30 * time.Second):
		t.Fatal("grpcurl did not get a Welcome")
	}
	return c
}

func (c *curl) command(ctx context.Context, method string, request any) *exec.Cmd {
	data, err := json.Marshal(request)
	if err != nil {
		panic(err) // maps of strings and numbers
	}
	cmd := exec.CommandContext(ctx, "grpcurl", "-plaintext", "-connect-timeout", "2",
		"-H", "authorization: Bearer dev:curl", "-d", string(data), c.address, "reprise.v1.ChatService/"+method)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func (c *curl) call(ctx context.Context, method string, request any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return c.command(ctx, method, request).CombinedOutput()
}

// listen opens a session and resumes it whenever its stream ends.
func (c *curl) listen(ctx context.Context, opened chan struct{}) {
	for ctx.Err() == nil {
		method, request := "Open", map[string]any{"history": 1}
		if c.session != "" {
			method, request = "Resume", map[string]any{"session_id": c.session, "resume_key": c.key}
			if c.position != nil {
				request["positions"] = []any{map[string]any{
					"room": c.room, "incarnation": c.position.GetIncarnation(), "offset": c.position.GetOffset(),
				}}
			}
		}
		cmd := c.command(ctx, method, request)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			c.complain("%v", err)
			return
		}
		c.read(ctx, out, opened)
		_ = cmd.Wait() // the stream was cut, or ctx ended
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (c *curl) read(ctx context.Context, out io.Reader, opened chan struct{}) {
	frames := json.NewDecoder(out)
	for {
		var raw json.RawMessage
		if frames.Decode(&raw) != nil {
			return // cut in the middle of a frame, or the end
		}
		f := new(reprisev1.ServerFrame)
		if err := protojson.Unmarshal(raw, f); err != nil {
			c.complain("%v in %s", err, raw)
			return
		}
		c.take(ctx, f, opened)
	}
}

func (c *curl) take(ctx context.Context, f *reprisev1.ServerFrame, opened chan struct{}) {
	switch w := f.GetFrame().(type) {
	case *reprisev1.ServerFrame_Welcome:
		first := c.session == ""
		if !first && c.session != w.Welcome.GetSessionId() {
			c.complain("got another session: %v", w.Welcome.GetOutcome())
		}
		c.session, c.key, c.attach = w.Welcome.GetSessionId(), w.Welcome.GetResumeKey(), w.Welcome.GetAttach()
		if first {
			close(opened)
		}
	case *reprisev1.ServerFrame_RoomState:
		if c.position == nil {
			c.position = w.RoomState.GetPosition()
		}
	case *reprisev1.ServerFrame_Events:
		for _, e := range w.Events.GetEvents() {
			if e.GetAfter() != c.position.GetOffset() {
				c.complain("holds %d and got an event after %d", c.position.GetOffset(), e.GetAfter())
			}
			c.position = &reprisev1.Position{Room: c.room, Incarnation: w.Events.GetIncarnation(), Offset: e.GetOffset()}
			c.add(toLine(e))
			c.unacked++
		}
		c.acknowledge(ctx)
	case *reprisev1.ServerFrame_Gap, *reprisev1.ServerFrame_Rewind, *reprisev1.ServerFrame_Fenced:
		c.complain("was told %v", f)
	}
}

// acknowledge acknowledges now and then, and does not mind when it fails because
// its stream has ended.
func (c *curl) acknowledge(ctx context.Context) {
	if c.unacked < 20 {
		return
	}
	c.unacked = 0
	request := map[string]any{
		"via":       map[string]any{"session_id": c.session, "attach": c.attach},
		"positions": []any{map[string]any{"room": c.room, "offset": c.position.GetOffset()}},
	}
	out, err := c.call(ctx, "Ack", request)
	if err == nil || ctx.Err() != nil {
		return
	}
	// By its code: grpcurl asks the server how to read the reason, and the server
	// may have been killed since.
	for _, expected := range []string{"Failed to dial", "Unavailable", "Code: FailedPrecondition"} {
		if strings.Contains(string(out), expected) {
			return
		}
	}
	c.complain("Ack: %v %s", err, out)
}

// send retries with one client id until the server has confirmed.
func (c *curl) send(ctx context.Context, room, text string) error {
	request := map[string]any{"room": room, "text": text, "client_id": strings.ReplaceAll(text, " ", "-")}
	for ctx.Err() == nil {
		out, err := c.call(ctx, "SendMessage", request)
		if err == nil {
			return nil
		}
		if strings.Contains(string(out), "InvalidArgument") {
			return fmt.Errorf("%w: %s", err, out)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return ctx.Err()
}
