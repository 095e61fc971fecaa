package server_test

import (
	"testing"
	"time"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

// TestResumeHintWithoutALimit: a server that admits all clients at once does
// not tell them to wait for seconds each.
func TestResumeHintWithoutALimit(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.Limits.Attaches = -1 })
	var hint time.Duration
	for range 3 {
		stream, err := n.ChatServiceClient.Open(as(t, "alice"), &reprisev1.OpenRequest{})
		if err != nil {
			t.Fatal(err)
		}
		f, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		hint = f.GetWelcome().GetResumeHint().AsDuration()
	}
	if hint > 100*time.Millisecond {
		t.Errorf("three clients are told to come back within %v", hint)
	}
}
