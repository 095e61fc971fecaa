package gateway

import (
	"context"
	"sync"
	"time"

	"github.com/reprise-chat/reprise/server/internal/limit"
)

// wsLease is what a websocket's message holds of the budget. The library reads
// a message whole before it hands on any of it, so a large one waits for room
// before its bytes are read, and holds it until all were handed on. Safe for
// concurrent use.
type wsLease struct {
	call   *call
	budget *limit.Budget
	most   uint64        // bytes of a message
	within time.Duration // in which a large message has to come

	mu        sync.Mutex
	lease     limit.Lease
	late      *time.Timer
	messages  int   // that have begun
	handedOn  int64 // bytes that gRPC was given
	read      int64 // and those of whole messages
	beginning bool  // the next frame begins a message
}

// wsUnleased is how large a message may be that does without.
const wsUnleased = 32 << 10

// newMessages returns the budget of a gateway: one address has a quarter, or
// what two of the largest messages need.
func newMessages(maxRecv int) *limit.Budget {
	const total = 32 << 20
	per := max(total/4, 2*2*(maxRecv+oversizeSlack))
	return limit.NewBudget("bytes of requests on their way", max(total, 2*per), per, 2*time.Second)
}

// frame is told of a data frame before its payload is read. size is what the
// message has by then, the frame included.
func (l *wsLease) frame(ctx context.Context, length, size uint64, last bool) error {
	l.mu.Lock()
	first := l.beginning || l.messages == 0
	if first {
		l.messages++
	}
	l.beginning = last
	headers := l.messages == 1 // which are handed on to nobody
	if !headers {
		l.read += int64(length)
		if first && length > 0 {
			l.read-- // says what the message is
		}
	}
	held := l.lease != limit.Lease{}
	l.mu.Unlock()
	if headers || held || size <= wsUnleased {
		return nil
	}
	need := 2 * size // the library's buffer grows by doubling
	if !last {
		need = 2 * l.most
	}
	lease, err := l.budget.Acquire(ctx, l.call.address, int(min(need, 2*l.most)))
	if err != nil {
		return errBusy
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lease, l.late = lease, time.AfterFunc(l.within, func() { l.call.cancel(errRequest) })
	return nil
}

// came is told that a message has come whole: it has not to hurry any more.
func (l *wsLease) came() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.arrivedLocked()
}

// passed is told what gRPC was given.
func (l *wsLease) passed(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handedOn += int64(n); l.beginning && l.handedOn >= l.read {
		l.releaseLocked()
	}
}

func (l *wsLease) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.releaseLocked()
}

func (l *wsLease) releaseLocked() {
	l.arrivedLocked()
	l.lease.Release()
}

func (l *wsLease) arrivedLocked() {
	if l.late != nil {
		l.late.Stop()
		l.late = nil
	}
}
