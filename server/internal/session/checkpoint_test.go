package session

import (
	"math"
	"testing"
)

func TestCheckpointID(t *testing.T) {
	for _, n := range []uint64{0, 1, 35, 36, 1 << 32, math.MaxUint64 - 1, math.MaxUint64} {
		id := checkpointID(n)
		if got, ok := parseCheckpoint(id); !ok || got != n {
			t.Errorf("%d is %q is %d, %t", n, id, got, ok)
		}
	}
	for _, bad := range []string{
		"", "cp_", "1", "CP_1", "cp_ 1", "cp_1 ", "cp_01", "cp_A", "cp_+1", "cp_-1", "cp_1_0", "cp_\x00",
		"cp_zzzzzzzzzzzzz", "cp_3w5e11264sgsg", "cp_00000000000000", "s_1",
	} {
		if n, ok := parseCheckpoint(bad); ok {
			t.Errorf("%q is %d", bad, n)
		}
	}
}

// FuzzCheckpointID: every id that is taken is the one that was given out.
func FuzzCheckpointID(f *testing.F) {
	f.Add("cp_1", uint64(1))
	f.Add("cp_3w5e11264sgsf", uint64(math.MaxUint64))
	f.Add("cp_01", uint64(0))
	f.Add("x", uint64(36))
	f.Fuzz(func(t *testing.T, id string, n uint64) {
		if got, ok := parseCheckpoint(id); ok && checkpointID(got) != id {
			t.Fatalf("%q is taken for %d, which is %q", id, got, checkpointID(got))
		}
		if got, ok := parseCheckpoint(checkpointID(n)); !ok || got != n {
			t.Fatalf("%d comes back as %d, %t", n, got, ok)
		}
	})
}
