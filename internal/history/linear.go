package history

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// maxWindow bounds the operations of one room that are checked together: the
// search is exponential in what is concurrent.
const maxWindow = 2000

// Linearizable checks with porcupine that each publish and each read took
// effect at one moment between its call and its answer, in the order of the
// final log. A room is a register that holds the newest publish: a publish
// replaces the one before it in the log, and a read, which is an attach with
// the head that its CaughtUp names, finds the newest one up to there.
//
// All attempts to publish one client id are one operation, because the event
// appears at most once (rule duplicate): from the first call to the first
// receipt. If nobody got a receipt but the final log has the event, it took
// effect at some time after the first call. What the final log does not have
// is for other rules, or trimmed.
func Linearizable(records []Record, timeout time.Duration) []Violation {
	h := index(records)
	numbers := make(map[string]int)
	var out []Violation
	for room, final := range h.final {
		ops := h.operations(room, final, numbers)
		for window := range slices.Chunk(ops, maxWindow) {
			if porcupine.CheckOperationsTimeout(register(window), window, timeout) == porcupine.Illegal {
				out = append(out, Violation{"P4", "linear", fmt.Sprintf(
					"%d operations on %s cannot have happened one after another", len(window), room), nil})
			}
		}
	}
	return out
}

// step is what an operation does to the register.
type step struct{ from, to uint64 }

// operations returns what was done to a room, in the order of its log.
func (h *history) operations(room string, final []Record, numbers map[string]int) []porcupine.Operation {
	var ops []porcupine.Operation
	newest := make(map[uint64]uint64) // by offset: the newest publish up to it
	var last uint64
	for _, r := range final {
		if r.ID != "" {
			if op, ok := publishOperation(h, idOf{room, r.ID}); ok {
				op.Input, op.ClientId = step{last, r.Off}, number(numbers, room+"\x00"+r.ID)
				ops = append(ops, op)
				last = r.Off
			}
		}
		newest[r.Off] = last
	}
	for _, p := range h.clients {
		var called Record
		for _, r := range h.steps[p] {
			if r.K == Attach && r.Ph == Call {
				called = r
			}
			at, kept := newest[r.Off]
			if r.K == CaughtUp && r.Room == room && kept && called.K != "" {
				ops = append(ops, porcupine.Operation{
					ClientId: number(numbers, p), Input: step{at, at}, Call: called.T, Return: r.T,
				})
			}
		}
	}
	slices.SortStableFunc(ops, func(a, b porcupine.Operation) int {
		return cmp.Compare(a.Input.(step).to, b.Input.(step).to)
	})
	return ops
}

func number(numbers map[string]int, of string) int {
	n, ok := numbers[of]
	if !ok {
		n = len(numbers)
		numbers[of] = n
	}
	return n
}

// publishOperation is what all attempts with one client id did; ok is false if
// nobody made any.
func publishOperation(h *history, id idOf) (op porcupine.Operation, ok bool) {
	calls := h.calls[id]
	if len(calls) == 0 {
		return op, false
	}
	op = porcupine.Operation{Call: calls[0].call.T, Return: math.MaxInt64}
	for _, k := range calls {
		if k.end.Ph == OK && k.end.T < op.Return {
			op.Return = k.end.T
		}
	}
	return op, true
}

// register is a model of a window of operations. In each state at most one
// publish can be next, so that the search does not branch.
func register(window []porcupine.Operation) porcupine.Model {
	start := window[0].Input.(step).from
	return porcupine.Model{
		Init: func() any { return start },
		Step: func(state, input, _ any) (bool, any) {
			s := input.(step)
			return state.(uint64) == s.from, s.to
		},
	}
}
