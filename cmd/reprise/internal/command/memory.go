package command

import (
	"log/slog"
	"math"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// memoryShare of what the machine, or the container, has is what the garbage
// collector keeps the process below if it can. The store's cache and the
// kernel's buffers lie outside of it.
const memoryShare = 0.8

// limitMemory sets a soft limit of memory for this process, unless GOMEMLIMIT
// does, and says in the log what it is. Without one the garbage collector lets
// the heap double, whatever the machine has.
func limitMemory(log *slog.Logger) {
	limit, err := memlimit.Set(
		memlimit.WithRatio(memoryShare),
		memlimit.WithProvider(memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)),
	)
	switch {
	case err != nil:
		log.Warn("no soft limit of memory: set GOMEMLIMIT", "error", err)
	case limit == math.MaxInt64:
		log.Info("memory", "soft_limit", "none")
	default:
		log.Info("memory", "soft_limit_mib", limit>>20)
	}
}
