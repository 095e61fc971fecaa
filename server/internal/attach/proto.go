package attach

import (
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/room"
)

// RoomProto returns a room as the contract describes it.
func RoomProto(i room.Info) *reprisev1.Room {
	r := &reprisev1.Room{
		Name: i.Meta.Name, Title: i.Meta.Title, Creator: i.Meta.Creator,
		Access:     reprisev1.RoomAccess_ROOM_ACCESS_OPEN,
		CreateTime: timestamppb.New(i.Meta.Created),
		Members:    i.Members, Head: i.Head, Oldest: i.Oldest, Incarnation: i.Incarnation,
	}
	if i.Meta.Private {
		r.Access = reprisev1.RoomAccess_ROOM_ACCESS_PRIVATE
	}
	if keep := i.Meta.Retention; !keep.IsZero() {
		r.Retention = &reprisev1.Retention{MaxEvents: keep.MaxEvents, MaxBytes: keep.MaxBytes}
		if keep.MaxAge > 0 {
			r.Retention.MaxAge = durationpb.New(keep.MaxAge)
		}
	}
	return r
}
