package rpc

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/name"
)

// Bounds of requests that are not configurable.
const (
	maxHistory     = 1000
	maxTailLast    = 10_000
	maxFocus       = 100
	maxAckMany     = 1000
	maxEarlier     = 8
	maxFirst       = 100 // further first members of a room
	maxPage        = 1000
	defaultPage    = 100
	maxIncarnation = 64
	maxAgeSeconds  = 290 * 366 * 24 * 60 * 60 // fits into a time.Duration
	maxSessionID   = 64
)

func (v *violations) room(field, s string) { v.check(field, name.CheckRoom(s)) }
func (v *violations) clientID(s string)    { v.check("client_id", name.CheckClientID(s)) }
func (v *violations) instance(s string)    { v.check("instance_id", name.CheckInstance(s)) }

// atMost checks a number.
func (v *violations) atMost(field string, n uint32, bound uint32) {
	if n > bound {
		v.add(field, fmt.Sprintf("must be at most %d, is %d", bound, n))
	}
}

// many checks the length of a list.
func (v *violations) many(field string, n, bound int) {
	if n > bound {
		v.add(field, fmt.Sprintf("must have at most %d entries, has %d", bound, n))
	}
}

// text checks text that is shown to people or handed to programs.
func (v *violations) text(field, s string, minLen, maxLen int) {
	switch {
	case len(s) < minLen:
		v.add(field, "must not be empty")
	case len(s) > maxLen:
		v.add(field, fmt.Sprintf("must have at most %d bytes, has %d", maxLen, len(s)))
	case !utf8.ValidString(s):
		v.add(field, "must be valid UTF-8")
	}
}

// id checks an id that the server has given out and the client hands back.
func (v *violations) id(field, s, prefix string) {
	switch {
	case s == "":
		v.add(field, "must be set; it is in the Welcome")
	case len(s) > maxSessionID:
		v.add(field, fmt.Sprintf("must have at most %d characters, has %d", maxSessionID, len(s)))
	case !strings.HasPrefix(s, prefix) || name.CheckIssued(s, maxSessionID) != nil:
		v.add(field, fmt.Sprintf("is not one that the server gave out: those begin with %q", prefix))
	}
}

func (v *violations) via(via *reprisev1.Via) {
	if via != nil {
		v.id("via.session_id", via.GetSessionId(), "s_")
	}
}

func (v *violations) focus(rooms []string) {
	v.many("focus", len(rooms), maxFocus)
	for i, r := range rooms[:min(len(rooms), maxFocus)] {
		v.room(fmt.Sprintf("focus[%d]", i), r)
	}
}

func (v *violations) positions(ps []*reprisev1.Position, bound int) {
	if v.many("positions", len(ps), bound); len(ps) > bound {
		return
	}
	// There may be thousands, so nothing is made for one that is good.
	seen := make(map[string]bool, len(ps))
	for i, p := range ps {
		wrong := func(err error, rest string, args ...any) {
			if v.more > 0 {
				v.more++ // all that is said of it
			} else {
				v.add(fmt.Sprintf("positions[%d].", i)+fmt.Sprintf(rest, args...), err.Error())
			}
		}
		if err := name.CheckRoom(p.GetRoom()); err != nil {
			wrong(err, "room")
		}
		if err := checkIncarnation(p.GetIncarnation()); err != nil {
			wrong(err, "incarnation")
		}
		if n := len(p.GetEarlier()); n > maxEarlier {
			wrong(fmt.Errorf("must have at most %d entries, has %d", maxEarlier, n), "earlier")
		}
		for j, e := range p.GetEarlier()[:min(len(p.GetEarlier()), maxEarlier)] {
			if err := checkIncarnation(e.GetIncarnation()); err != nil {
				wrong(err, "earlier[%d].incarnation", j)
			}
		}
		if seen[p.GetRoom()] {
			wrong(errNamedTwice, "room")
		}
		seen[p.GetRoom()] = true
	}
}

func (v *violations) incarnation(field, s string) { v.check(field, checkIncarnation(s)) }

var (
	errNamedTwice  = errors.New("is named twice")
	errIncarnation = fmt.Errorf("is not one that the server gave out, or has more than %d characters", maxIncarnation)
)

func checkIncarnation(s string) error {
	if s != "" && name.CheckIssued(s, maxIncarnation) != nil {
		return errIncarnation
	}
	return nil
}

// page checks a page size and returns the one in force.
func (v *violations) page(field string, n int32) int {
	switch {
	case n < 0:
		v.add(field, fmt.Sprintf("must not be negative, is %d", n))
	case n > maxPage:
		v.add(field, fmt.Sprintf("must be at most %d, is %d", maxPage, n))
	case n == 0:
		return defaultPage
	}
	return int(n)
}

func checkMessage(r *reprisev1.SendMessageRequest, prefix string, maxText int) error {
	v := violations{prefix: prefix}
	v.room("room", r.GetRoom())
	v.clientID(r.GetClientId())
	v.text("text", r.GetText(), 1, maxText)
	return v.err()
}

func checkCustom(r *reprisev1.SendCustomRequest, prefix string, maxData int) error {
	v := violations{prefix: prefix}
	v.room("room", r.GetRoom())
	v.clientID(r.GetClientId())
	v.check("type", name.CheckType(r.GetType()))
	v.text("data", r.GetData(), 0, maxData)
	return v.err()
}

func checkAck(r *reprisev1.AckRequest, prefix string) error {
	v := violations{prefix: prefix}
	v.positions(r.GetPositions(), maxAckMany)
	return v.err()
}

func checkCreate(r *reprisev1.CreateRoomRequest, prefix string) error {
	v := violations{prefix: prefix}
	v.room("room", r.GetRoom())
	v.check("title", name.CheckTitle(r.GetTitle()))
	if _, ok := reprisev1.RoomAccess_name[int32(r.GetAccess())]; !ok {
		v.add("access", fmt.Sprintf("has no value %d", r.GetAccess()))
	}
	v.many("members", len(r.GetMembers()), maxFirst)
	for i, m := range r.GetMembers()[:min(len(r.GetMembers()), maxFirst)] {
		v.check(fmt.Sprintf("members[%d]", i), name.CheckUser(m))
	}
	if age := r.GetRetention().GetMaxAge(); age != nil && (!age.IsValid() || age.AsDuration() < 0 || age.GetSeconds() > maxAgeSeconds) {
		v.add("retention.max_age", "must be a duration from 0 to 290 years")
	}
	return v.err()
}

// checkJoin checks a join by somebody who speaks for an attachment, or not.
func checkJoin(r *reprisev1.JoinRoomRequest, prefix string, attached bool) error {
	v := violations{prefix: prefix}
	v.room("room", r.GetRoom())
	v.atMost("history", r.GetHistory(), maxHistory)
	if r.GetHistory() > 0 && !attached {
		v.add("history", "needs via: without an attachment there is nobody to deliver it to (use ListEvents)")
	}
	return v.err()
}

func checkInvite(r *reprisev1.InviteMemberRequest, prefix string) error {
	v := violations{prefix: prefix}
	v.room("room", r.GetRoom())
	v.check("user", name.CheckUser(r.GetUser()))
	return v.err()
}

func checkLeave(r *reprisev1.LeaveRoomRequest, prefix string) error {
	v := violations{prefix: prefix}
	v.room("room", r.GetRoom())
	return v.err()
}

func checkOpen(r *reprisev1.OpenRequest, prefix string) error {
	v := violations{prefix: prefix}
	v.instance(r.GetInstanceId())
	v.atMost("history", r.GetHistory(), maxHistory)
	v.focus(r.GetFocus())
	return v.err()
}

func checkResume(r *reprisev1.ResumeRequest, prefix string, maxPositions int) error {
	v := violations{prefix: prefix}
	if r.GetSessionId() != "" || r.GetResumeKey() != "" || r.GetCheckpoint() != "" {
		v.id("session_id", r.GetSessionId(), "s_")
		v.id("resume_key", r.GetResumeKey(), "rk_")
	}
	v.instance(r.GetInstanceId())
	if _, ok := reprisev1.Takeover_name[int32(r.GetTakeover())]; !ok {
		v.add("takeover", fmt.Sprintf("has no value %d", r.GetTakeover()))
	}
	v.positions(r.GetPositions(), maxPositions)
	if r.GetCheckpoint() != "" {
		v.id("checkpoint", r.GetCheckpoint(), "cp_")
	}
	v.focus(r.GetFocus())
	return v.err()
}

func checkTail(r *reprisev1.TailRequest) error {
	var v violations
	v.room("room", r.GetRoom())
	v.incarnation("incarnation", r.GetIncarnation())
	v.atMost("last", r.GetLast(), maxTailLast)
	return v.err()
}
