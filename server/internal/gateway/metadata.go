package gateway

import (
	"net/http"
	"strings"
)

// metadataNames are the request headers that become gRPC metadata. Everything
// else is dropped: over fetch every header would get through, and a websocket
// begins with a block of names and values that its peer makes up, so cookie,
// x-forwarded-for, host, origin or whatever a proxy or an interceptor might
// trust can be forged there.
type metadataNames map[string]bool

// Headers that gRPC and its clients use, in lower case.
var knownMetadata = []string{
	"authorization",
	"content-type",
	"grpc-accept-encoding",
	"grpc-encoding",
	"grpc-timeout",
	"traceparent",
	"tracestate",
	"user-agent",
	"x-grpc-web",
	"x-user-agent",
}

func newMetadataNames(more []string) metadataNames {
	names := metadataNames{}
	for _, list := range [][]string{knownMetadata, more} {
		for _, n := range list {
			names[strings.ToLower(n)] = true
		}
	}
	return names
}

// list returns the names in lower case, as a browser asks for them. The
// wrapper would copy upgrade headers of canonical case into the metadata of a
// websocket, and these are none.
func (m metadataNames) list() []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	return names
}

// only returns the headers whose names are known.
func (m metadataNames) only(h http.Header) http.Header {
	kept := make(http.Header, len(h))
	for name, values := range h {
		if m[strings.ToLower(name)] {
			kept[name] = values
		}
	}
	return kept
}
