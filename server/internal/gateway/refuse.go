package gateway

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// tooManyCalls answers a call beyond the bounds.
var tooManyCalls = func() *status.Status {
	s, err := status.New(codes.ResourceExhausted,
		"too many calls in progress; close some, or try again later").WithDetails(
		&errdetails.ErrorInfo{Reason: "TOO_MANY_CALLS", Domain: "reprise.chat"},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(2 * time.Second)},
	)
	if err != nil {
		panic(err) // the details above always marshal
	}
	return s
}()

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
