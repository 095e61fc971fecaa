package load

import (
	"errors"
	"fmt"
	"time"
)

// BodyMin is the shortest text of an event: two numbers of 16 hexadecimal
// digits, which every protocol carries as it is.
const BodyMin = 32

const digits = "0123456789abcdef"

var errBody = errors.New("load: the text of an event is not what was sent")

// start is what the times in bodies count from. They are compared within one
// process only.
var start = time.Now()

// AppendBody appends a text of size bytes, at least BodyMin, that says which
// event of its room it is and when it was meant to be sent.
func AppendBody(b []byte, size int, number uint64, at time.Time) []byte {
	b = appendHex(b, number)
	b = appendHex(b, uint64(at.Sub(start)))
	for i := BodyMin; i < size; i++ {
		b = append(b, 'x')
	}
	return b
}

// ParseBody is the inverse of AppendBody.
func ParseBody(b []byte) (number uint64, at time.Time, err error) {
	if len(b) < BodyMin {
		return 0, at, fmt.Errorf("%w: %d bytes", errBody, len(b))
	}
	number, ok1 := parseHex(b[:16])
	d, ok2 := parseHex(b[16:32])
	if !ok1 || !ok2 {
		return 0, at, fmt.Errorf("%w: %q", errBody, b[:32])
	}
	return number, start.Add(time.Duration(d)), nil
}

func appendHex(b []byte, v uint64) []byte {
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[v>>shift&15])
	}
	return b
}

func parseHex(b []byte) (v uint64, ok bool) {
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			v = v<<4 | uint64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return v, true
}
