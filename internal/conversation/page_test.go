package conversation

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"
)

// page is the chat page in a real Chromium, driven by page.mjs.
type page struct {
	cmd *exec.Cmd

	mu  sync.Mutex // one command at a time
	in  io.Writer
	out *bufio.Scanner
}

// shown is what the page shows.
type shown struct {
	State   string
	Pending []string
	Entries []struct {
		Kind, Offset, Sender, Text string
		Replayed                   bool
	}
}

func newPage(t *testing.T, url, room string) *page {
	t.Helper()
	p := &page{cmd: exec.Command("node", "page.mjs", url, "page", room)}
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewScanner(out)
	p.out.Buffer(nil, 16<<20)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.do(nil, "close", nil)
		timer := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
		_ = p.cmd.Wait()
		timer.Stop()
	})
	if !p.out.Scan() {
		t.Fatal("Chromium did not start")
	}
	if err := p.do(nil, "enter", nil); err != nil {
		t.Fatal(err)
	}
	return p
}

// do carries out a command of page.mjs.
func (p *page) do(result any, command string, args map[string]any) error {
	request := map[string]any{"command": command}
	for k, v := range args {
		request[k] = v
	}
	data, err := json.Marshal(request)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.in.Write(append(data, '\n')); err != nil {
		return err
	}
	if !p.out.Scan() {
		return fmt.Errorf("page.mjs ended: %w", p.out.Err())
	}
	var answer struct {
		Result json.RawMessage
		Error  string
	}
	if err := json.Unmarshal(p.out.Bytes(), &answer); err != nil {
		return err
	}
	if answer.Error != "" {
		return fmt.Errorf("page: %s: %s", command, answer.Error)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Result, result)
}

func (p *page) shows() (s shown, err error) {
	err = p.do(&s, "lines", nil)
	return s, err
}

// heard returns what the page shows as what a client heard.
func (s shown) heard() *heard {
	h := &heard{who: "page"}
	for _, e := range s.Entries {
		offset, err := strconv.ParseUint(e.Offset, 10, 64)
		if err != nil {
			h.complain("shows a line without an offset: %+v", e)
			continue
		}
		if e.Kind != "message" {
			e.Sender, e.Text = "", ""
		}
		h.add(line{offset, e.Sender, e.Text})
	}
	return h
}
