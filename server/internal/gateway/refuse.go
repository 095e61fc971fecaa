package gateway

import (
	"encoding/base64"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // what clients compress with
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/reprise-chat/reprise/server/internal/reason"
)

// Refusals of calls that never reach gRPC, and causes of the end of a call's
// context: either way the client is told.
var (
	errHost   = &reason.Error{Reason: reason.HostNotServed, Message: "this host name is not served here: the server's operator allows it with --host"}
	errOrigin = &reason.Error{Reason: reason.OriginRefused, Message: "pages of this origin may not call: the server's operator allows it with --origin"}
	errCalls  = &reason.Error{Reason: reason.TooManyCalls, Message: "too many calls in progress; close some, or try again later"}

	errRequest   = &reason.Error{Reason: reason.RequestTimeout, Message: "the request did not come in time; nothing was done: send it again"}
	errStalled   = &reason.Error{Reason: reason.CallStalled, Message: "more was sent than the call consumes: send less ahead of the answers"}
	errMalformed = &reason.Error{Reason: reason.Malformed, Message: "the request's body cannot be read: it is not grpc-web as its content-type says"}
	errBusy      = &reason.Error{Reason: reason.RateLimited, Message: "too many bytes of requests are on their way from your address; try again"}
	errLarge     = &reason.Error{Reason: reason.FrameTooLarge, Message: "the message is far larger than what is taken: send less at once"}
	errShutdown  = &reason.Error{Reason: reason.Draining, Message: "the server is stopping: try again in a moment"}
)

// checkHeader refuses what gRPC's ServeHTTP would answer with an HTTP error,
// which the wrapper makes a stray frame of, and content that it would decode
// as what it is not.
func checkHeader(h http.Header) *reason.Error {
	malformed := func(format string, args ...any) *reason.Error {
		return &reason.Error{Reason: reason.Malformed, Message: fmt.Sprintf(format, args...)}
	}
	given := h.Get("Content-Type") // made gRPC's by the wrapper
	switch media, _, err := mime.ParseMediaType(given); {
	case err != nil, media != "application/grpc" && media != "application/grpc+proto":
		return &reason.Error{Reason: reason.ContentType, Message: fmt.Sprintf(
			"messages are protobuf: content-type application/grpc-web+proto or application/grpc-web-text+proto, not that of %.60q", given)}
	}
	if t := h.Values("Grpc-Timeout"); len(t) > 1 || len(t) == 1 && !goodTimeout(t[0]) {
		return malformed("grpc-timeout %.20q: want up to 8 digits and one of H M S m u n", t)
	}
	if e := h.Get("Grpc-Encoding"); e != "" && e != encoding.Identity && encoding.GetCompressor(e) == nil {
		return &reason.Error{Reason: reason.EncodingUnknown, Message: fmt.Sprintf("grpc-encoding %.40q is not known here: use gzip or identity", e)}
	}
	for name, values := range h {
		if !strings.HasSuffix(strings.ToLower(name), "-bin") {
			continue
		}
		for _, v := range values {
			if _, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(v, "=")); err != nil {
				return malformed("metadata %.60q is not base64", name)
			}
		}
	}
	return nil
}

func goodTimeout(t string) bool {
	if len(t) < 2 || len(t) > 9 || strings.IndexByte("HMSmun", t[len(t)-1]) < 0 {
		return false
	}
	_, err := strconv.ParseUint(t[:len(t)-1], 10, 32)
	return err == nil
}

// setStatus makes s the status of a response whose trailers are still to be
// written.
func setStatus(h http.Header, s *status.Status) {
	h.Set("Grpc-Status", strconv.Itoa(int(s.Code())))
	h.Set("Grpc-Message", percentEncoded(s.Message()))
	h.Del("Grpc-Status-Details-Bin")
	if p := s.Proto(); len(p.GetDetails()) > 0 {
		if b, err := proto.Marshal(p); err == nil {
			h.Set("Grpc-Status-Details-Bin", base64.RawStdEncoding.EncodeToString(b))
		}
	}
}

// percentEncoded encodes a message as gRPC does in a header.
func percentEncoded(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
