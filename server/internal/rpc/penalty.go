package rpc

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/reprise-chat/reprise/server/internal/limit"
)

// penalty has those wait who are refused again and again: what costs the server
// little, a token that is none or a request that is not looked into, costs
// whoever sends it time, so that thousands of them a second do not take the
// processors from everybody else. Only refusals wait. It is by address.
type penalty struct {
	free    *limit.ByKey
	large   *limit.ByKey // by user
	waiting *limit.Tally
}

const (
	// freeRefusals of an address in a second are answered at once.
	freeRefusals = 20
	// penaltyTime is how long further ones take, half of it more or less, so that
	// they do not all come again at one moment.
	penaltyTime = time.Second
	// freeLarge is how many large requests of a user may be refused in a second
	// for what they say; then no further one is looked into.
	freeLarge = 1
	// maxPenalties wait at once, and of one address: each may hold what its
	// client has sent ahead. Beyond, refusals are answered at once.
	maxPenalties           = 1024
	maxPenaltiesPerAddress = 256
)

func newPenalty() *penalty {
	return &penalty{
		free:    limit.NewByKey("refused requests", freeRefusals, 2*freeRefusals),
		large:   limit.NewByKey("requests of yours with thousands of entries that are refused", freeLarge, 2*freeLarge),
		waiting: limit.NewTally(maxPenalties, maxPenaltiesPerAddress),
	}
}

// wait waits if the caller's address has been refused much.
func (p *penalty) wait(ctx context.Context) {
	address := addressOf(ctx)
	if p.free.Allow(address) == nil || !p.waiting.Take(address) {
		return
	}
	defer p.waiting.Give(address)
	t := time.NewTimer(penaltyTime/2 + rand.N(penaltyTime))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
