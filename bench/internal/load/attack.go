package load

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that rawCodec wraps
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// raw is an encoded message.
type raw []byte

// rawCodec sends raw as it is.
type rawCodec struct{ encoding.CodecV2 }

// Marshal implements encoding.CodecV2.
func (c rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(raw); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// How an attack is made: so many streams on one gRPC connection, and so many
// grpc-web POSTs at once.
const (
	attackStreams = 90
	attackPosts   = 100
)

// Attack sends requests that decode to fifty times their size, and some that
// are as much as a valid one may be, as fast as they are answered, until ctx
// ends. token may be empty.
func Attack(ctx context.Context, grpcAddr, httpURL, token string) error {
	bombs := map[string]raw{
		// 524,000 empty positions.
		reprisev1.ChatService_Ack_FullMethodName: raw(strings.Repeat("\x12\x00", 524_000)),
		// 8,000 positions of eight empty stretches.
		reprisev1.ChatService_Resume_FullMethodName: raw(strings.Repeat("\x2a\x10"+strings.Repeat("\x22\x00", 8), 8000)),
	}
	conn, err := grpc.NewClient(grpcAddr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2("proto")})))
	if err != nil {
		return err
	}
	defer conn.Close()
	web := &http.Client{Transport: &http.Transport{MaxConnsPerHost: attackPosts, MaxIdleConnsPerHost: attackPosts}}
	native := ctx
	if token != "" {
		native = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	var wg sync.WaitGroup
	every := func(n int, send func(method string, b raw)) {
		for range n {
			wg.Go(func() {
				for ctx.Err() == nil {
					for method, b := range bombs {
						send(method, b)
					}
				}
			})
		}
	}
	every(attackStreams, func(method string, b raw) { _ = conn.Invoke(native, method, b, new(emptypb.Empty)) })
	every(attackPosts, func(method string, b raw) { _ = post(ctx, web, httpURL+method, token, b) })
	wg.Wait()
	return nil
}

// post makes one grpc-web call and reads its answer.
func post(ctx context.Context, c *http.Client, url, token string, b raw) error {
	body := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/grpc-web+proto")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := c.Do(r)
	if err != nil {
		return fmt.Errorf("load: a bomb: %w", err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	return response.Body.Close()
}
