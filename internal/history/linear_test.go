package history

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestLinearizable(t *testing.T) {
	for name, records := range map[string][]Record{
		"a good history": good(),
		"a longer one":   long(rand.New(rand.NewPCG(5, 6)), 3*maxWindow),
		"a lost answer, a retry": script(
			pub("a", Call, 0), pub("a", Unknown, 0), pub("b", Call, 0), pub("b", OK, 2),
			pub("a", Call, 0), pub("a", OK, 1), fin("a", 1), fin("b", 2)),
	} {
		if v := Linearizable(records, 10*time.Second); len(v) > 0 {
			t.Errorf("%s is called bad: %v", name, v)
		}
	}
	for name, records := range map[string][]Record{
		"an offset that goes backwards": script(
			pub("a", Call, 0), pub("a", OK, 2), pub("b", Call, 0), pub("b", OK, 1), fin("b", 1), fin("a", 2)),
		"a read of what had passed": script(
			pub("a", Call, 0), pub("a", OK, 1), pub("b", Call, 0), pub("b", OK, 2),
			Record{P: "c", K: Attach, Ph: Call}, Record{P: "c", K: CaughtUp, Room: "r", Off: 1},
			fin("a", 1), fin("b", 2)),
	} {
		if v := Linearizable(records, 10*time.Second); len(v) == 0 {
			t.Errorf("%s is not caught", name)
		}
	}
}
