package pebble

import (
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "github.com/reprise-chat/reprise/gen/reprise/store/v1"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// The value of an event is its running total of bytes, then the element.
//
// The total counts the room's encoded events up to and including this one, so
// "how many bytes lie between two offsets" takes two reads.
const eventHeaderLen = 8

func splitEvent(value []byte) (total uint64, element []byte, err error) {
	if len(value) < eventHeaderLen {
		return 0, nil, fmt.Errorf("event record of %d bytes", len(value))
	}
	return binary.BigEndian.Uint64(value), value[eventHeaderLen:], nil
}

func encodeUint64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func decodeUint64(value []byte) (uint64, error) {
	if len(value) != 8 {
		return 0, fmt.Errorf("number of %d bytes", len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

// encode marshals a record. The records have neither required fields nor
// strings (which would have to be UTF-8), so that cannot fail.
func encode(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("store: encode record: %v", err))
	}
	return b
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func fromTimestamp(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func roomRecord(number uint64, m *store.Meta) *storev1.Room {
	r := &storev1.Room{
		Number:  number,
		Title:   []byte(m.Title),
		Private: m.Private,
		Creator: []byte(m.Creator),
		Created: timestamp(m.Created),
	}
	if !m.Retention.IsZero() {
		r.Retention = &storev1.Retention{
			MaxEvents: m.Retention.MaxEvents,
			MaxBytes:  m.Retention.MaxBytes,
		}
		if m.Retention.MaxAge != 0 {
			r.Retention.MaxAge = durationpb.New(m.Retention.MaxAge)
		}
	}
	return r
}

func decodeRoom(name string, value []byte) (number uint64, m *store.Meta, err error) {
	var r storev1.Room
	if err := proto.Unmarshal(value, &r); err != nil {
		return 0, nil, err
	}
	if r.GetNumber() == 0 {
		return 0, nil, fmt.Errorf("room without a number")
	}
	return r.GetNumber(), &store.Meta{
		Name:    name,
		Title:   string(r.GetTitle()),
		Private: r.GetPrivate(),
		Creator: string(r.GetCreator()),
		Created: fromTimestamp(r.GetCreated()),
		Retention: store.Retention{
			MaxAge:    r.GetRetention().GetMaxAge().AsDuration(),
			MaxEvents: r.GetRetention().GetMaxEvents(),
			MaxBytes:  r.GetRetention().GetMaxBytes(),
		},
	}, nil
}

func decodeTail(value []byte) (*storev1.Tail, error) {
	t := new(storev1.Tail)
	if err := proto.Unmarshal(value, t); err != nil {
		return nil, err
	}
	if t.GetOldest() == 0 || t.GetOldest() > t.GetHead()+1 {
		return nil, fmt.Errorf("tail with oldest %d and head %d", t.GetOldest(), t.GetHead())
	}
	return t, nil
}

func decodeUserRoom(room string, value []byte) (store.UserRoom, error) {
	var r storev1.UserRoom
	if err := proto.Unmarshal(value, &r); err != nil {
		return store.UserRoom{}, err
	}
	return store.UserRoom{
		Room:    room,
		Joined:  r.GetJoined(),
		Offset:  r.GetOffset(),
		By:      string(r.GetBy()),
		Version: r.GetVersion(),
	}, nil
}

func invitationRecord(number uint64, m *store.MemberChange) *storev1.Invitation {
	return &storev1.Invitation{Number: number, By: []byte(m.By), Offset: m.Offset, Time: timestamp(m.Time)}
}

func decodeInvitation(room, user string, value []byte) (store.Invitation, error) {
	var r storev1.Invitation
	if err := proto.Unmarshal(value, &r); err != nil {
		return store.Invitation{}, err
	}
	return store.Invitation{
		Room: room, User: user, By: string(r.GetBy()), Offset: r.GetOffset(), Time: fromTimestamp(r.GetTime()),
	}, nil
}

func decodeCounts(value []byte) (*storev1.UserCounts, error) {
	c := new(storev1.UserCounts)
	return c, proto.Unmarshal(value, c)
}

func sessionRecord(s store.Session) *storev1.Session {
	r := &storev1.Session{
		User:       []byte(s.User),
		Revision:   s.Revision,
		Attach:     s.Attach,
		Created:    timestamp(s.Created),
		Attached:   timestamp(s.Attached),
		Seen:       s.Seen,
		Checkpoint: s.Checkpoint,
		Used:       s.Used,
	}
	for _, k := range s.Keys {
		r.Keys = append(r.Keys, &storev1.Key{Hash: k.Hash[:], Attach: k.Attach, Told: k.Told})
	}
	return r
}

func decodeSession(id string, value []byte) (store.Session, error) {
	var r storev1.Session
	if err := proto.Unmarshal(value, &r); err != nil {
		return store.Session{}, err
	}
	s := store.Session{
		ID:         id,
		User:       string(r.GetUser()),
		Revision:   r.GetRevision(),
		Attach:     r.GetAttach(),
		Created:    fromTimestamp(r.GetCreated()),
		Attached:   fromTimestamp(r.GetAttached()),
		Seen:       r.GetSeen(),
		Checkpoint: r.GetCheckpoint(),
		Used:       r.GetUsed(),
	}
	for _, k := range r.GetKeys() {
		if len(k.GetHash()) != len(store.Key{}.Hash) {
			return store.Session{}, fmt.Errorf("key hash of %d bytes", len(k.GetHash()))
		}
		s.Keys = append(s.Keys, store.Key{Hash: [32]byte(k.GetHash()), Attach: k.GetAttach(), Told: k.GetTold()})
	}
	return s, nil
}

func decodePosition(room string, value []byte) (store.Position, error) {
	var r storev1.Position
	if err := proto.Unmarshal(value, &r); err != nil {
		return store.Position{}, err
	}
	return store.Position{
		Room:        room,
		Incarnation: string(r.GetIncarnation()),
		Offset:      r.GetOffset(),
		Checkpoint:  r.GetCheckpoint(),
	}, nil
}
