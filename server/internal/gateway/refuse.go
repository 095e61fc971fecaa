package gateway

import (
	"encoding/base64"
	"net/http"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/reprise-chat/reprise/server/internal/reason"
)

// tooManyCalls answers a call beyond the bounds.
var tooManyCalls = reason.TooManyCalls.Status("too many calls in progress; close some, or try again later", 0)

// refuse answers with tooManyCalls, as gRPC would if it had been asked.
func refuse(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", r.Header.Get("Content-Type"))
	h.Set("Grpc-Status", strconv.Itoa(int(tooManyCalls.Code())))
	h.Set("Grpc-Message", tooManyCalls.Message())
	if b, err := proto.Marshal(tooManyCalls.Proto()); err == nil {
		h.Set("Grpc-Status-Details-Bin", base64.RawStdEncoding.EncodeToString(b))
	}
	w.WriteHeader(http.StatusOK)
}
