package rpc

import (
	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/name"
)

// A resume is never refused for its size: its bounds follow from how many rooms
// a user may have. The rest of this file is that arithmetic, for the codec, for
// validation and for the Welcome alike.

const (
	// minPositions is how many positions a resume may have at least, whatever
	// the limit of rooms: it may have been lowered since, and a client may hold
	// positions of rooms that it has left.
	minPositions = 8000
	// maxPositionBytes is what one encoded position takes at most, as an element
	// of a list: room, incarnation and offset, and each earlier stretch.
	maxPositionBytes = 4 + (3 + name.MaxRoom) + (2 + maxIncarnation) + 11 + maxEarlier*(2+(2+maxIncarnation)+11)
	// shortPositionBytes is one without earlier stretches.
	shortPositionBytes = maxPositionBytes - maxEarlier*(2+(2+maxIncarnation)+11)
	// restBytes is what the other fields of any request take at most, beside its
	// text: focus has the most.
	restBytes = 1<<10 + maxFocus*(3+name.MaxRoom)
)

// EnvelopeBytes is what a request takes beside its text at most, and so by how
// much the limit of a frame must exceed the one of a message.
const EnvelopeBytes = restBytes

// AckBytes is what the acknowledgements take that one request may have: those
// of programs do not name earlier stretches.
const AckBytes = maxAckMany*shortPositionBytes + restBytes

// maxPositions is how many positions a resume may have: of twice as many rooms
// as one may have.
func (o Options) maxPositions() int { return max(minPositions, 2*o.MaxRooms) }

// MaxResume bounds an encoded ResumeRequest, in bytes. All positions that it may
// have fit if they name no earlier stretches, and the longest ones of twice as
// many rooms as one may have.
func (o Options) MaxResume() int {
	return max(o.MaxFrame, 2*o.MaxRooms*maxPositionBytes+restBytes, o.maxPositions()*shortPositionBytes+restBytes)
}

// MaxRecv is what the transport takes, in bytes: more than the limit of a frame,
// so that a frame that is a little too large gets an answer that says so instead
// of the end of its stream.
func (o Options) MaxRecv() int { return max(2*o.MaxFrame, o.MaxResume()+restBytes) }

// Limits returns what the Welcome says. sessions bounds those of a user.
func (o Options) Limits(sessions int) *reprisev1.Limits {
	return &reprisev1.Limits{
		FrameBytes: uint32(o.MaxFrame), MessageBytes: uint32(o.MaxMessage),
		ResumeBytes: uint32(o.MaxResume()), ResumePositions: uint32(o.maxPositions()), AckPositions: maxAckMany,
		Rooms: uint32(o.MaxRooms), Sessions: uint32(sessions),
	}
}
