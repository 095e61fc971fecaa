package rpc

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// tooManyError says that a list or map of a message has more entries than it
// may.
type tooManyError struct {
	field     string // the path to it
	most, has int
}

func (e *tooManyError) Error() string {
	return fmt.Sprintf("%s must have at most %d entries, has %d", e.field, e.most, e.has)
}

// counted is how many times its bound the entries of a list are counted to,
// for the message of the error.
const counted = 2

// scan walks through an encoded message without decoding it and returns about
// how many bytes it takes decoded, beside those of its strings. The error is
// errMalformed, or a *tooManyError; such a message must not be decoded. It
// allocates nothing but the error.
func (p *plan) scan(b []byte, depth int) (cost int, err error) {
	if depth > maxDepth {
		return 0, errMalformed
	}
	var counts [maxLists + 1]int // of entries; 0 counts all that is no list
	var once uint64
	cost = p.size
	for len(b) > 0 {
		num, typ, value, n := consumeRecord(b)
		if n < 0 {
			return 0, errMalformed
		}
		b = b[n:]
		if num >= uint64(len(p.fields)) {
			counts[0]++
			continue
		}
		f := &p.fields[num]
		k := f.count(typ, value)
		list := f.list
		if k < 0 {
			list, k = 0, 1 // another field of that number: unknown
		}
		if counts[list] += k; list != 0 && counts[list] > f.most {
			if counts[list] > counted*f.most {
				break // enough is known
			}
			continue // counted, and not looked into
		}
		if list != 0 {
			cost += k * f.size
		}
		if f.of == nil || typ != f.wire {
			continue
		}
		// A second one would be merged into the first, and so its lists. No
		// encoder writes one.
		if once&f.once != 0 {
			return 0, errMalformed
		}
		once |= f.once
		c, err := f.of.scan(value, depth+1)
		if err != nil {
			return 0, within(f, counts[f.list]-1, err)
		}
		cost += c
	}
	if counts[0] > maxSingles {
		return 0, errMalformed
	}
	for i := range p.fields {
		if f := &p.fields[i]; f.list != 0 && counts[f.list] > f.most {
			return 0, &tooManyError{f.name, f.most, counts[f.list]}
		}
	}
	return cost, nil
}

// count returns how many entries a value is, or -1 if it is none of the field.
func (f *fieldPlan) count(typ protowire.Type, value []byte) int {
	switch {
	case typ == f.wire && f.name != "":
		return 1
	case typ != protowire.BytesType || f.width == 0 || f.list == 0:
		return -1
	case f.width > 1: // packed
		return len(value) / f.width
	}
	k := 0
	for _, c := range value {
		if c < 0x80 { // the last byte of a varint
			k++
		}
	}
	return k
}

// consumeRecord returns a field's number, its type, its value without the
// length if that has one, and how long all of it is; less than 0 if it is
// malformed.
func consumeRecord(b []byte) (num uint64, typ protowire.Type, value []byte, n int) {
	tag, n := uint64(b[0]), 1
	if tag >= 0x80 {
		if tag, n = protowire.ConsumeVarint(b); n < 0 {
			return 0, 0, nil, n
		}
	}
	num, typ = tag>>3, protowire.Type(tag&7)
	if num == 0 || num > uint64(protowire.MaxValidNumber) {
		return 0, 0, nil, -1
	}
	var k int
	if typ == protowire.BytesType {
		value, k = protowire.ConsumeBytes(b[n:])
	} else if k = protowire.ConsumeFieldValue(protowire.Number(num), typ, b[n:]); k >= 0 {
		value = b[n : n+k]
	}
	if k < 0 {
		return 0, 0, nil, k
	}
	return num, typ, value, n + k
}

// within says where in a message an error of a nested one is.
func within(f *fieldPlan, index int, err error) error {
	e, ok := err.(*tooManyError) //nolint:errorlint // scan returns it as it is
	if !ok {
		return err
	}
	path := f.name
	if f.list != 0 {
		path = fmt.Sprintf("%s[%d]", f.name, index)
	}
	return &tooManyError{path + "." + e.field, e.most, e.has}
}
