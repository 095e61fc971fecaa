package chat

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/cmd/reprise/internal/line"
)

// maxLine bounds one line of input, in bytes. The server's limit of a message
// is below it. What a longer line has is read and left out, and the lines after
// it are sent.
const maxLine = 1 << 20

// Plain chats without a screen: each line of in is a message, and show gets
// what happens in the room. It ends when in has ended, everything was
// confirmed and, as everybody else, has been printed; or when ctx ends. What
// was refused is reported to problem, and makes the result an error.
func Plain(ctx context.Context, o Options, in io.Reader, show func(line.Record) error, problem func(string)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o.Config.OnState = announce(problem)
	client, err := connect(ctx, &o)
	if err != nil {
		return err
	}
	if o.Notice != "" {
		problem(o.Notice)
	}
	p := &pipe{room: o.Room, print: show, moved: make(chan struct{}, 1)}
	var run sync.WaitGroup
	var ended error
	run.Go(func() {
		defer cancel() // nothing can be sent or printed any more
		ended = client.Run(ctx, p)
	})
	err = p.speak(ctx, client, in, problem)
	cancel()
	run.Wait()
	return errors.Join(err, ended, client.Close())
}

// announce returns a state callback that says when the connection is lost and
// found.
func announce(say func(string)) func(reprise.State) {
	lost := false
	return func(s reprise.State) {
		switch {
		case s.Phase == reprise.Waiting && !lost:
			lost = true
			say("reconnecting" + why(s.Err))
		case s.Phase == reprise.Live && lost:
			lost = false
			say("connected · " + caughtUp(s))
		}
	}
}

// pipe is the handler of a chat without a screen.
type pipe struct {
	room  string
	print func(line.Record) error

	mu     sync.Mutex
	offset uint64        // newest offset printed
	moved  chan struct{} // has a token after offset changed
}

// speak sends the lines of in, one after the other, and then waits until the
// last of them has been printed.
func (p *pipe) speak(ctx context.Context, client *reprise.Client, in io.Reader, problem func(string)) error {
	lines, done := scan(ctx, in)
	var last uint64
	refused := 0
	for text := range lines {
		if text == "" {
			continue
		}
		if len(text) > maxLine {
			refused++
			problem(fmt.Sprintf("not sent: a line has more than %d bytes: too much for one message", maxLine))
			continue
		}
		receipt, err := client.Send(ctx, p.room, text, reprise.WithClientID(newClientID()))
		switch {
		case ctx.Err() != nil:
			return err
		case err != nil:
			refused++
			problem("not sent: " + plain(err))
		default:
			last = receipt.Offset
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	if err := <-done; err != nil {
		return err
	}
	p.await(ctx, last)
	if refused > 0 {
		return fmt.Errorf("%d of the lines were refused", refused)
	}
	return nil
}

// await returns when offset has been printed, or ctx ends.
func (p *pipe) await(ctx context.Context, offset uint64) {
	for {
		p.mu.Lock()
		printed := p.offset
		p.mu.Unlock()
		if printed >= offset {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-p.moved:
		}
	}
}

// scan reads lines until in ends or ctx does. The reading goroutine stays
// behind when ctx ends first, because a read of a pipe or a terminal cannot be
// ended; it ends with the process. done has the reason in ended for, nil for
// its end.
func scan(ctx context.Context, in io.Reader) (lines <-chan string, done <-chan error) {
	out, end := make(chan string), make(chan error, 1)
	raw := make(chan string)
	go func() {
		defer close(raw)
		r := bufio.NewReader(in)
		for {
			text, err := readLine(r)
			if text != "" {
				select {
				case raw <- text:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				if errors.Is(err, io.EOF) {
					err = nil
				}
				end <- err
				return
			}
		}
	}()
	go func() {
		defer close(out)
		for {
			select {
			case text, ok := <-raw:
				if !ok {
					return
				}
				select {
				case out <- text:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, end
}

// readLine returns the next line without its end. Of a line that is longer than
// maxLine it returns one byte more than that and drops the rest.
func readLine(r *bufio.Reader) (string, error) {
	var text []byte
	for {
		part, err := r.ReadSlice('\n')
		text = append(text, part[:min(len(part), maxLine+2-len(text))]...) // with the line's end
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		line := bytes.TrimSuffix(text, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		return string(line[:min(len(line), maxLine+1)]), err
	}
}

func (p *pipe) reached(room string, offset uint64) {
	if room != p.room {
		return
	}
	p.mu.Lock()
	p.offset = offset
	p.mu.Unlock()
	select {
	case p.moved <- struct{}{}:
	default:
	}
}

func (p *pipe) show(r line.Record) error {
	if r.Room != p.room {
		return nil
	}
	return p.print(r)
}

// HandleEvent implements reprise.Handler.
func (p *pipe) HandleEvent(_ context.Context, e reprise.Event) error {
	defer p.reached(e.Room, e.Offset)
	return p.show(line.OfEvent(e))
}

// HandleGap implements reprise.Handler.
func (p *pipe) HandleGap(_ context.Context, g reprise.Gap) error {
	defer p.reached(g.Room, g.Last)
	return p.show(line.OfGap(g))
}

// HandleRewind implements reprise.Handler.
func (p *pipe) HandleRewind(_ context.Context, r reprise.Rewind) error {
	return p.show(line.OfRewind(r))
}
