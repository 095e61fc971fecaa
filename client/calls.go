package reprise

import (
	"context"
	"errors"
	"fmt"
	"iter"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

const pageSize = 200

// call makes one unary call, with a fresh token. If the server cannot be
// reached the next call tries another one.
func (c *Client) call(ctx context.Context, f func(context.Context, reprisev1.ChatServiceClient) error) error {
	conn, err := c.pool.get()
	if err != nil {
		return err
	}
	defer conn.release()
	ctx, err = c.authorize(ctx)
	if err != nil {
		return err
	}
	err = errorOf(f(ctx, conn.chat))
	select {
	case <-c.closed:
		if err != nil {
			return errors.Join(ErrClosed, err)
		}
	default:
	}
	if isNetwork(err) && ctx.Err() == nil {
		conn.retire(true)
	}
	return err
}

// read makes a call that changes nothing, or nothing twice: each address is
// tried, and a token that was refused is fetched anew once.
func (c *Client) read(ctx context.Context, f func(context.Context, reprisev1.ChatServiceClient) error) error {
	refreshed := false
	for attempt := 1; ; attempt++ {
		err := c.call(ctx, f)
		switch {
		case errors.Is(err, ErrUnauthenticated) && !refreshed:
			refreshed = true
		case isNetwork(err) && ctx.Err() == nil && attempt < len(c.cfg.Addresses):
		default:
			return err
		}
	}
}

// change makes a call about a room, for the attachment if Run is running, until a
// server has answered it for good or ctx ends, at each address. One that was
// refused because the attachment had been replaced has changed nothing, and is
// made again for the new one. Unclear reports that an attempt before the last
// one may have succeeded without an answer.
func (c *Client) change(ctx context.Context, room string, f func(context.Context, reprisev1.ChatServiceClient, *reprisev1.Via) error) (unclear bool, err error) {
	var replaced *attachment
	var last error
	t := tries{c: c}
	for {
		a, err := c.attached(ctx, replaced, room)
		if err != nil {
			return unclear, errors.Join(err, last)
		}
		var via *reprisev1.Via
		if a != nil {
			via = a.via
		}
		err = c.call(ctx, func(ctx context.Context, chat reprisev1.ChatServiceClient) error {
			return f(ctx, chat, via)
		})
		switch {
		case err == nil || errors.Is(err, ErrClosed):
			return unclear, err
		case ctx.Err() != nil:
			return unclear, errors.Join(ctx.Err(), last)
		case a != nil && isReplaced(err):
			replaced, last = a, err
			continue
		}
		if end := t.again(ctx, err); end != nil {
			if !isFinal(err) {
				end = errors.Join(end, err)
			}
			return unclear, end
		}
		last = err
		unclear = unclear || isNetwork(err)
	}
}

// Join makes the user a member of a room; a room that does not exist is
// created open. While Run is running the room and, first, its newest history
// events (at most 1000) are delivered to the handler. Without Run there is
// nobody to show history to: then it is to be 0, or the error is ErrNotRunning.
// (A room to be in from the start is one of [Config.Rooms].) Joining twice
// changes nothing. If the answer was lost and the room joined all the same, the
// room begins with the join, without its history: ListEvents has that.
//
// Join, Leave and Create are retried, at each address, until a server has
// answered for good (an [*Error]) or ctx ends; then the error is ctx's, joined
// with the last failure.
func (c *Client) Join(ctx context.Context, room string, history uint32) (*Room, error) {
	if err := checkName("room", room); err != nil {
		return nil, err
	}
	if err := checkAtMost("history", uint64(history), maxHistory); err != nil {
		return nil, err
	}
	if history > 0 && !c.isRunning() {
		return nil, fmt.Errorf("%w: the history of %s would be shown to nobody (see Config.Rooms, or give 0)", ErrNotRunning, room)
	}
	var joined *reprisev1.JoinRoomResponse
	_, err := c.change(ctx, room, func(ctx context.Context, chat reprisev1.ChatServiceClient, via *reprisev1.Via) (err error) {
		joined, err = join(ctx, chat, via, room, history)
		return err
	})
	return joined.GetRoom(), err
}

func join(ctx context.Context, chat reprisev1.ChatServiceClient, via *reprisev1.Via, room string, history uint32) (*reprisev1.JoinRoomResponse, error) {
	if via == nil && history > 0 {
		return nil, ErrNotRunning // it has ended meanwhile
	}
	joined, err := chat.JoinRoom(ctx, &reprisev1.JoinRoomRequest{Via: via, Room: room, History: history})
	if err == nil && joined.GetRoom().GetName() != room {
		err = fmt.Errorf("%w: an answer about %q", ErrProtocol, joined.GetRoom().GetName()) // not a server's
	}
	return joined, err
}

// Leave ends the user's membership of a room. It is retried as [Client.Join].
func (c *Client) Leave(ctx context.Context, room string) error {
	if err := checkName("room", room); err != nil {
		return err
	}
	unclear, err := c.change(ctx, room, func(ctx context.Context, chat reprisev1.ChatServiceClient, via *reprisev1.Via) error {
		_, err := chat.LeaveRoom(ctx, &reprisev1.LeaveRoomRequest{Via: via, Room: room})
		return err
	})
	if unclear && errors.Is(err, ErrRoomNotFound) {
		return nil // that is what an attempt before has done, or nothing was to do
	}
	return err
}

// Invite invites a user to a room, who becomes a member by joining it: as a
// member of an open room, or as the creator of a private one. joined reports
// that the user is a member, by the server's policy or since before. Inviting
// twice changes nothing, so it is retried as [Client.Join].
func (c *Client) Invite(ctx context.Context, room, user string) (joined bool, err error) {
	if err := checkName("room", room); err != nil {
		return false, err
	}
	if err := checkName("user", user); err != nil {
		return false, err
	}
	_, err = c.change(ctx, room, func(ctx context.Context, chat reprisev1.ChatServiceClient, via *reprisev1.Via) error {
		out, err := chat.InviteMember(ctx, &reprisev1.InviteMemberRequest{Via: via, Room: room, User: user})
		joined = out.GetJoined()
		return err
	})
	return joined, err
}

// CreateOptions describe a room to be created.
type CreateOptions struct {
	// Title for people, one line of at most 256 bytes.
	Title string
	// Private lets in only the creator and those who are invited.
	Private bool
	// Members are users to invite, at most 100; a server may have the policy to
	// make them members at once. See [Client.Invite].
	Members []string
	// Retention of the room; nil for the server's default.
	Retention *Retention
}

// Create creates a room with the user as its first member. It is retried as
// [Client.Join]. If an attempt had no answer and the next one is told that the
// room exists, the error is an [*UnknownOutcomeError] that is ErrRoomExists:
// GetRoom then says whether it is the user's.
func (c *Client) Create(ctx context.Context, room string, opts CreateOptions) (*Room, error) {
	if err := opts.check(room); err != nil {
		return nil, err
	}
	access := reprisev1.RoomAccess_ROOM_ACCESS_OPEN
	if opts.Private {
		access = reprisev1.RoomAccess_ROOM_ACCESS_PRIVATE
	}
	var created *reprisev1.CreateRoomResponse
	unclear, err := c.change(ctx, room, func(ctx context.Context, chat reprisev1.ChatServiceClient, via *reprisev1.Via) (err error) {
		created, err = chat.CreateRoom(ctx, &reprisev1.CreateRoomRequest{
			Via: via, Room: room, Title: opts.Title, Access: access, Members: opts.Members, Retention: opts.Retention,
		})
		return err
	})
	if unclear && errors.Is(err, ErrRoomExists) {
		err = &UnknownOutcomeError{Room: room, Err: err}
	}
	return created.GetRoom(), err
}

// GetRoom returns one of the user's rooms.
func (c *Client) GetRoom(ctx context.Context, room string) (*Room, error) {
	if err := checkName("room", room); err != nil {
		return nil, err
	}
	var got *reprisev1.GetRoomResponse
	err := c.read(ctx, func(ctx context.Context, chat reprisev1.ChatServiceClient) (err error) {
		got, err = chat.GetRoom(ctx, &reprisev1.GetRoomRequest{Room: room})
		return err
	})
	return got.GetRoom(), err
}

// ListRooms returns the user's rooms by name, fetching page after page. It
// ends after the first error.
func (c *Client) ListRooms(ctx context.Context) iter.Seq2[*Room, error] {
	return pages(func(token string) ([]*Room, string, error) {
		var page *reprisev1.ListRoomsResponse
		err := c.read(ctx, func(ctx context.Context, chat reprisev1.ChatServiceClient) (err error) {
			page, err = chat.ListRooms(ctx, &reprisev1.ListRoomsRequest{PageSize: pageSize, PageToken: token})
			return err
		})
		return page.GetRooms(), page.GetNextPageToken(), err
	})
}

// ListInvitations returns the invitations that are open for the user, by room,
// fetching page after page. It ends after the first error. Join accepts one.
func (c *Client) ListInvitations(ctx context.Context) iter.Seq2[*Invitation, error] {
	return pages(func(token string) ([]*Invitation, string, error) {
		var page *reprisev1.ListInvitationsResponse
		err := c.read(ctx, func(ctx context.Context, chat reprisev1.ChatServiceClient) (err error) {
			page, err = chat.ListInvitations(ctx, &reprisev1.ListInvitationsRequest{PageSize: pageSize, PageToken: token})
			return err
		})
		return page.GetInvitations(), page.GetNextPageToken(), err
	})
}

// ListMembers returns the members of one of the user's rooms by name,
// fetching page after page. It ends after the first error.
func (c *Client) ListMembers(ctx context.Context, room string) iter.Seq2[*Member, error] {
	return pages(func(token string) ([]*Member, string, error) {
		if err := checkName("room", room); err != nil {
			return nil, "", err
		}
		var page *reprisev1.ListMembersResponse
		err := c.read(ctx, func(ctx context.Context, chat reprisev1.ChatServiceClient) (err error) {
			page, err = chat.ListMembers(ctx, &reprisev1.ListMembersRequest{Room: room, PageSize: pageSize, PageToken: token})
			return err
		})
		return page.GetMembers(), page.GetNextPageToken(), err
	})
}

// pages turns a paged call into a sequence.
func pages[T any](fetch func(token string) ([]*T, string, error)) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		token := ""
		for {
			items, next, err := fetch(token)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if next == "" || next == token {
				return
			}
			token = next
		}
	}
}

// Range selects events of a room.
type Range struct {
	// After and Before bound the offsets, both exclusive; Before 0 is no
	// bound.
	After, Before uint64
	// Limit is how many events at most; 100 if 0, at most 1000.
	Limit int
	// Newest returns the newest events of the range instead of the oldest,
	// still in ascending order: for scrolling back.
	Newest bool
}

// Page is a range of a room's log, in ascending order.
type Page struct {
	Events []Event
	// Gap is what retention removed from the start of the range, or nil.
	Gap *Gap
	// Head and Oldest are the room's newest and oldest retained offset.
	Head, Oldest uint64
	// More reports that the range has more events than were returned.
	More bool
}

// ListEvents returns part of a room's log, without a session.
func (c *Client) ListEvents(ctx context.Context, room string, r Range) (Page, error) {
	if err := checkName("room", room); err != nil {
		return Page{}, err
	}
	if r.Limit < 0 || r.Limit > maxList {
		return Page{}, invalid("limit", "must be 0 to %d, is %d", maxList, r.Limit)
	}
	var list *reprisev1.ListEventsResponse
	err := c.read(ctx, func(ctx context.Context, chat reprisev1.ChatServiceClient) (err error) {
		list, err = chat.ListEvents(ctx, &reprisev1.ListEventsRequest{
			Room: room, After: r.After, Before: r.Before, Limit: int32(r.Limit), Newest: r.Newest,
		})
		return err
	})
	if err != nil {
		return Page{}, err
	}
	page := Page{Head: list.GetHead(), Oldest: list.GetOldest(), More: list.GetMore()}
	for _, stretch := range list.GetStretches() {
		for _, e := range stretch.GetEvents() {
			page.Events = append(page.Events, eventOf(room, stretch.GetIncarnation(), e))
		}
	}
	if g := list.GetGap(); g != nil {
		gap := gapOf(g)
		page.Gap = &gap
	}
	return page, nil
}

// ListSessions returns the user's sessions, oldest first.
func (c *Client) ListSessions(ctx context.Context) ([]*Session, error) {
	var list *reprisev1.ListSessionsResponse
	err := c.read(ctx, func(ctx context.Context, chat reprisev1.ChatServiceClient) (err error) {
		list, err = chat.ListSessions(ctx, &reprisev1.ListSessionsRequest{})
		return err
	})
	return list.GetSessions(), err
}

// EndSession ends one of the user's sessions: its positions are forgotten, a
// live stream of it ends.
func (c *Client) EndSession(ctx context.Context, id string) error {
	if err := checkText("session_id", id, 1, maxID); err != nil {
		return err
	}
	return c.read(ctx, func(ctx context.Context, chat reprisev1.ChatServiceClient) error {
		_, err := chat.EndSession(ctx, &reprisev1.EndSessionRequest{SessionId: id})
		return err
	})
}
