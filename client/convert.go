package reprise

import (
	"strings"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

func eventOf(room, incarnation string, e *reprisev1.Event) Event {
	return Event{
		Room:        room,
		Incarnation: incarnation,
		Offset:      e.GetOffset(),
		After:       e.GetAfter(),
		Time:        e.GetTime().AsTime(),
		Sender:      e.GetSender(),
		ClientID:    e.GetClientId(),
		Proto:       e,
	}
}

func gapOf(g *reprisev1.Gap) Gap {
	gap := Gap{
		Room:        g.GetRoom(),
		First:       g.GetFirst(),
		Last:        g.GetLast(),
		Reason:      GapUnspecified,
		Incarnation: g.GetIncarnation(),
		Recoverable: g.GetRecoverable(),
	}
	if name, ok := reprisev1.GapReason_name[int32(g.GetReason())]; ok {
		gap.Reason = GapReason(strings.TrimPrefix(name, "GAP_REASON_"))
	}
	return gap
}

func roomClosedOf(c *reprisev1.RoomClosed) RoomClosed {
	closed := RoomClosed{Room: c.GetRoom(), By: c.GetBy(), Offset: c.GetOffset()}
	if c.GetReason() != reprisev1.RoomClosed_REASON_UNSPECIFIED {
		closed.Reason = strings.TrimPrefix(c.GetReason().String(), "REASON_")
	}
	return closed
}
