package rpc

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/attach"
	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/room"
)

// maxListBytes bounds the events of one ListEvents answer, in bytes.
const maxListBytes = 512 << 10

// GetRoom implements ChatService.
func (s *Service) GetRoom(ctx context.Context, r *reprisev1.GetRoomRequest) (*reprisev1.GetRoomResponse, error) {
	return unary(ctx, s, nil, func(caller) (out *reprisev1.GetRoomResponse, err error) {
		var v violations
		v.room("room", r.GetRoom())
		if err := v.err(); err != nil {
			return nil, err
		}
		err = s.inMembers(ctx, r.GetRoom(), func(rm *room.Room) error {
			info, err := rm.Info()
			out = &reprisev1.GetRoomResponse{Room: attach.RoomProto(info)}
			return err
		})
		return out, err
	})
}

// ListRooms implements ChatService.
func (s *Service) ListRooms(ctx context.Context, r *reprisev1.ListRoomsRequest) (*reprisev1.ListRoomsResponse, error) {
	return unary(ctx, s, nil, func(c caller) (*reprisev1.ListRoomsResponse, error) {
		var v violations
		size := v.page("page_size", r.GetPageSize())
		from := v.token(r.GetPageToken())
		if err := v.err(); err != nil {
			return nil, err
		}
		memberships, _, err := s.store.UserRooms(ctx, c.user)
		if err != nil {
			return nil, err
		}
		out := new(reprisev1.ListRoomsResponse)
		for _, ur := range memberships { // by name
			if !ur.Joined || ur.Room < from {
				continue
			}
			if len(out.Rooms) == size {
				out.NextPageToken = pageToken(out.Rooms[size-1].GetName())
				break
			}
			err := s.in(ctx, ur.Room, func(rm *room.Room) error {
				info, err := rm.Info()
				out.Rooms = append(out.Rooms, attach.RoomProto(info))
				return err
			})
			if err != nil {
				return nil, err
			}
		}
		return out, nil
	})
}

// ListMembers implements ChatService.
func (s *Service) ListMembers(ctx context.Context, r *reprisev1.ListMembersRequest) (*reprisev1.ListMembersResponse, error) {
	return unary(ctx, s, nil, func(caller) (*reprisev1.ListMembersResponse, error) {
		var v violations
		v.room("room", r.GetRoom())
		size := v.page("page_size", r.GetPageSize())
		from := v.token(r.GetPageToken())
		if err := v.err(); err != nil {
			return nil, err
		}
		out := new(reprisev1.ListMembersResponse)
		err := s.inMembers(ctx, r.GetRoom(), func(rm *room.Room) error {
			members, err := rm.Members(ctx, from, size+1)
			for i, m := range members {
				if i == size {
					out.NextPageToken = pageToken(members[size-1].User)
					break
				}
				out.Members = append(out.Members, &reprisev1.Member{User: strings.ToValidUTF8(m.User, "\ufffd"), Joined: m.Joined})
			}
			return err
		})
		return out, err
	})
}

// ListInvitations implements ChatService.
func (s *Service) ListInvitations(ctx context.Context, r *reprisev1.ListInvitationsRequest) (*reprisev1.ListInvitationsResponse, error) {
	return unary(ctx, s, nil, func(c caller) (*reprisev1.ListInvitationsResponse, error) {
		var v violations
		size := v.page("page_size", r.GetPageSize())
		from := v.token(r.GetPageToken())
		if err := v.err(); err != nil {
			return nil, err
		}
		invitations, err := s.store.Invitations(ctx, c.user, from, size+1)
		out := new(reprisev1.ListInvitationsResponse)
		for i, in := range invitations {
			if i == size {
				out.NextPageToken = pageToken(invitations[size-1].Room)
				break
			}
			out.Invitations = append(out.Invitations, &reprisev1.Invitation{
				Room: in.Room, By: strings.ToValidUTF8(in.By, "\ufffd"), InviteTime: timestamppb.New(in.Time),
			})
		}
		return out, err
	})
}

// A page token is "pt_" and the base64url of the last name of its page, so
// that a page begins where the one before ended whatever has changed since. Any
// name will do: what was stored once can be listed whatever is a name today.
const tokenPrefix = "pt_"

func pageToken(last string) string {
	return tokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(last))
}

// token returns the least name that a page may begin with.
func (v *violations) token(token string) (from string) {
	if token == "" {
		return ""
	}
	last, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, tokenPrefix))
	if err != nil || pageToken(string(last)) != token {
		v.add("page_token", "is not one that the server gave out (next_page_token)")
		return ""
	}
	return string(append(last, 0)) // the first string after it
}

// ListEvents implements ChatService.
func (s *Service) ListEvents(ctx context.Context, r *reprisev1.ListEventsRequest) (*reprisev1.ListEventsResponse, error) {
	return unary(ctx, s, nil, func(caller) (*reprisev1.ListEventsResponse, error) {
		var v violations
		v.room("room", r.GetRoom())
		limit := v.page("limit", r.GetLimit())
		if r.GetBefore() > 0 && r.GetBefore() <= r.GetAfter() {
			v.add("before", fmt.Sprintf("must be greater than after (%d), or 0", r.GetAfter()))
		}
		if err := v.err(); err != nil {
			return nil, err
		}
		out := new(reprisev1.ListEventsResponse)
		err := s.inMembers(ctx, r.GetRoom(), func(rm *room.Room) error { return listEvents(ctx, rm, r, limit, out) })
		return out, err
	})
}

func listEvents(ctx context.Context, rm *room.Room, r *reprisev1.ListEventsRequest, limit int, out *reprisev1.ListEventsResponse) error {
	info, err := rm.Info()
	if err != nil {
		return err
	}
	out.Head, out.Oldest = info.Head, info.Oldest
	after, end := min(r.GetAfter(), info.Head), info.Head
	if b := r.GetBefore(); b > 0 {
		end = min(end, b-1)
	}
	first := max(after, info.Oldest-min(1, info.Oldest)) // what is retained begins after this
	if r.GetNewest() && end > first && end-first > uint64(limit) {
		first = end - uint64(limit)
		after = first
	}
	p := listing{room: rm, end: end, newest: r.GetNewest(), out: out}
	if err := rm.Range(ctx, after, min(end, first+uint64(limit))+1, p.add); err != nil {
		return err
	}
	p.finish(max(r.GetAfter(), info.Oldest-min(1, info.Oldest)))
	return p.err
}

// listing gathers the events of one answer, up to maxListBytes of them: from
// the start of the range, or, if newest, from its end.
type listing struct {
	room   *room.Room
	end    uint64 // last offset of the range asked for
	newest bool
	out    *reprisev1.ListEventsResponse

	events []listed
	bytes  int
	err    error
}

type listed struct {
	incarnation string
	event       *reprisev1.Event
	bytes       int
}

// add takes the next batch and reports whether it wants more.
func (p *listing) add(b room.Batch) bool {
	if b.Trimmed {
		last := min(b.Last, p.end)
		p.out.Gap = &reprisev1.Gap{
			Room: p.room.Name(), First: b.First, Last: last, Incarnation: p.room.Incarnation(last),
			Reason: reprisev1.GapReason_GAP_REASON_RETENTION,
		}
		return true
	}
	for data := b.Data; len(data) > 0 && p.err == nil; {
		var element []byte
		if element, data, p.err = event.Next(data); p.err != nil {
			break
		}
		if !p.newest && len(p.events) > 0 && p.bytes+len(element) > maxListBytes {
			return false
		}
		e, err := event.Decode(element)
		p.err = err
		p.events = append(p.events, listed{b.Incarnation, e, len(element)})
		for p.bytes += len(element); p.bytes > maxListBytes && len(p.events) > 1; p.events = p.events[1:] {
			p.bytes -= p.events[0].bytes
		}
	}
	return p.err == nil
}

// finish writes the events out; what is retained of the range begins after
// `after`.
func (p *listing) finish(after uint64) {
	for _, l := range p.events {
		p.out.Stretches = appendStretch(p.out.Stretches, p.room.Name(), l.incarnation, l.event)
	}
	if n := len(p.events); n > 0 {
		p.out.More = p.newest && p.events[0].event.GetAfter() > after ||
			!p.newest && p.events[n-1].event.GetOffset() < p.end
	}
}

// appendStretch adds an event to the last stretch, or begins another one.
func appendStretch(to []*reprisev1.Events, room, incarnation string, e *reprisev1.Event) []*reprisev1.Events {
	if n := len(to); n > 0 && to[n-1].GetIncarnation() == incarnation {
		to[n-1].Events = append(to[n-1].Events, e)
		return to
	}
	return append(to, &reprisev1.Events{Room: room, Incarnation: incarnation, Events: []*reprisev1.Event{e}})
}
