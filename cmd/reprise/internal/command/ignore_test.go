package command

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// ignore opens a stream that is welcomed and then neither read nor closed.
func ignore(t *testing.T, address string) {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer dev:mule")
	stream, err := reprisev1.NewChatServiceClient(conn).Connect(ctx)
	if err == nil {
		err = stream.Send(&reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_Open{Open: &reprisev1.OpenRequest{}}})
	}
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
}
