package history

import (
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// maxWindow bounds the operations of one room that are checked together:
// the search is exponential in what is concurrent, and a window of this size
// takes milliseconds.
const maxWindow = 2000

// Linearizable checks with porcupine that publishing behaves as if each
// publish took effect at one moment between its call and its receipt: a room
// is a register that holds the newest event, and the final log says what the
// log was when an event got its offset. It returns the rooms for which that is
// not so. Publishes without an answer may have taken effect or not.
func Linearizable(records []Record, timeout time.Duration) []Violation {
	h := index(records)
	var out []Violation
	byRoom := make(map[string][]porcupine.Operation)
	clients := make(map[string]int)
	for _, id := range sortedIDs(h.calls) {
		ops := byRoom[id.room]
		for _, k := range h.calls[id] {
			ops = append(ops, operation(k, clientNumber(clients, k.call.P), h.byID[id]))
		}
		byRoom[id.room] = ops
	}
	for room, ops := range byRoom {
		slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(max(-1, min(1, a.Call-b.Call))) })
		seen := make(map[string]int) // the window in which an id was first used
		for start := 0; start < len(ops); start += maxWindow {
			window := firstSeen(ops[start:min(start+maxWindow, len(ops))], seen, start)
			if porcupine.CheckOperationsTimeout(roomModel(), window, timeout) == porcupine.Illegal {
				out = append(out, Violation{"P4", "linear", fmt.Sprintf(
					"publishes %d to %d of %s cannot have happened one after another", start, start+len(window), room), nil})
			}
		}
	}
	return out
}

// firstSeen leaves out retries of what an earlier window had: each window
// begins with an empty memory.
func firstSeen(window []porcupine.Operation, seen map[string]int, start int) []porcupine.Operation {
	var out []porcupine.Operation
	for _, op := range window {
		id := op.Input.(publishInput).id
		if in, ok := seen[id]; ok && in != start {
			continue
		}
		seen[id] = start
		out = append(out, op)
	}
	return out
}

func clientNumber(numbers map[string]int, p string) int {
	n, ok := numbers[p]
	if !ok {
		n = len(numbers)
		numbers[p] = n
	}
	return n
}

type publishInput struct{ id string }

// publishOutput is what a publish was told; known is false without an answer,
// and off is then where the final log has the event, 0 if nowhere.
type publishOutput struct {
	off           uint64
	failed, known bool
}

func operation(k call, client int, final []Record) porcupine.Operation {
	op := porcupine.Operation{
		ClientId: client, Input: publishInput{k.call.ID}, Call: k.call.T,
		Return: int64(^uint64(0) >> 1), // without an answer it may take effect at any time
	}
	switch k.end.Ph {
	case OK:
		op.Return, op.Output = k.end.T, publishOutput{off: k.end.Off, known: true}
	case Fail:
		op.Return, op.Output = k.end.T, publishOutput{failed: true, known: true}
	default:
		out := publishOutput{}
		if len(final) > 0 {
			out.off = final[0].Off
		}
		op.Output = out
	}
	return op
}

// roomState is the model: the newest offset, and where each client id is, as a
// persistent list because porcupine backtracks.
type roomState struct {
	head uint64
	ids  *published
}

type published struct {
	id    string
	off   uint64
	older *published
}

func (p *published) find(id string) (uint64, bool) {
	for ; p != nil; p = p.older {
		if p.id == id {
			return p.off, true
		}
	}
	return 0, false
}

// roomModel: a publish of a new id gets an offset greater than the head (other
// events, such as joins, may lie between); one of a known id gets its offset.
func roomModel() porcupine.Model {
	nondeterministic := porcupine.NondeterministicModel{
		Init: func() []any { return []any{roomState{}} },
		Step: func(state, input, output any) []any {
			s, in, out := state.(roomState), input.(publishInput), output.(publishOutput)
			was, known := s.ids.find(in.id)
			switch {
			case out.failed:
				return []any{s}
			case !out.known && (known || out.off <= s.head): // it can have done nothing here
				return []any{s}
			case !out.known: // it took effect here, or never, or another attempt did
				return []any{s, roomState{out.off, &published{in.id, out.off, s.ids}}}
			case known && was == out.off:
				return []any{s}
			case known || out.off <= s.head:
				return nil
			}
			return []any{roomState{out.off, &published{in.id, out.off, s.ids}}}
		},
		Equal: func(a, b any) bool {
			x, y := a.(roomState), b.(roomState)
			return x.head == y.head && x.ids == y.ids
		},
	}
	return nondeterministic.ToModel()
}
