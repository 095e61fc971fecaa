package webtest

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"

	"google.golang.org/protobuf/proto"
)

// Fetch is one call over grpc-web by POST.
type Fetch struct {
	stream
	Response *http.Response
}

// Post begins a call of method at base with the messages.
func Post(ctx context.Context, c *http.Client, base, method string, o Options, messages ...proto.Message) (*Fetch, error) {
	var body []byte
	for _, m := range messages {
		body = append(body, Prefixed(m)...)
	}
	return PostBody(ctx, c, base, method, o, bytes.NewReader(body))
}

// PostBody begins a call whose request has any body.
func PostBody(ctx context.Context, c *http.Client, base, method string, o Options, body io.Reader) (*Fetch, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+method, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/grpc-web+proto")
	req.Header.Set("X-Grpc-Web", "1")
	for name, values := range o.Metadata {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	req.Host = o.Host
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return &Fetch{Response: resp}, fmt.Errorf("webtest: %s", resp.Status)
	}
	f := &Fetch{Response: resp}
	f.r, f.Header = resp.Body, resp.Header
	return f, nil
}

// Recv is as Websocket.Recv.
func (f *Fetch) Recv(m proto.Message) error {
	if f.Header.Get("Grpc-Status") != "" { // trailers only
		f.Trailer = f.Header
		return StatusError(f.Header)
	}
	return f.recv(m)
}

// Text makes Recv read a response in grpc-web-text: pieces of base64, each
// padded.
func (f *Fetch) Text() { f.r = &textReader{r: f.r} }

// Close ends the call.
func (f *Fetch) Close() { f.Response.Body.Close() }

type textReader struct {
	r    io.Reader
	rest []byte
}

func (t *textReader) Read(p []byte) (int, error) {
	for len(t.rest) == 0 {
		var quad [4]byte
		if _, err := io.ReadFull(t.r, quad[:]); err != nil {
			return 0, err
		}
		b, err := base64.StdEncoding.DecodeString(string(quad[:]))
		if err != nil {
			return 0, err
		}
		t.rest = b
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}
