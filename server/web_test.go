package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/gateway/webtest"
)

// TestP6_ManyFramesOverAWebsocket: a browser's stream is read on for as long as
// its frames are carried out, small ones and large ones.
func TestP6_ManyFramesOverAWebsocket(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	ws, err := webtest.DialWebsocket(as(t, "alice"), n.web, reprisev1.ChatService_Connect_FullMethodName, webtest.Options{
		Metadata: http.Header{"Authorization": {"Bearer dev:alice"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	send := func(f *reprisev1.ClientFrame) {
		t.Helper()
		if err := ws.SendMessage(f); err != nil {
			t.Fatal(err)
		}
	}
	answer := func(id string) {
		t.Helper()
		for {
			f := new(reprisev1.ServerFrame)
			if err := ws.Recv(f); err != nil {
				t.Fatalf("at frame %s: %v", id, err)
			}
			if r := f.GetReceipt(); r != nil && r.GetRequestId() == id {
				return
			}
		}
	}
	send(&reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_Open{Open: &reprisev1.OpenRequest{}}})
	text := strings.Repeat("x", 60<<10)
	for i := range 1000 {
		id := fmt.Sprint(i)
		f := &reprisev1.ClientFrame{RequestId: id, Frame: &reprisev1.ClientFrame_Ack{Ack: &reprisev1.AckRequest{}}}
		if i%20 == 19 {
			f.Frame = &reprisev1.ClientFrame_SendMessage{SendMessage: &reprisev1.SendMessageRequest{Room: "lobby", Text: text}}
		}
		send(f)
		answer(id)
	}
}
