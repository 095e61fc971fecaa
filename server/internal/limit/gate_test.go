package limit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-chat/reprise/server/internal/limit"
)

// person is a caller of whose user and address there is only this one.
func person(i int) limit.Caller {
	return limit.Caller{User: fmt.Sprint("user-", i), Address: fmt.Sprint("10.0.0.", i), Client: "phone"}
}

// admission is how somebody got in.
type admission struct {
	attempts int
	after    time.Duration // since the start
}

// insist tries until it is in, each time when it was told to, or up to late
// later.
func insist(t *testing.T, g *limit.Gate, c limit.Caller, late time.Duration) (a admission) {
	began := time.Now()
	for {
		a.attempts++
		err := g.Enter(t.Context(), c)
		if err == nil {
			a.after = time.Since(began)
			return a
		}
		time.Sleep(refused(t, err) + rand.N(late+1))
	}
}

// crowd has them all insist at once, and returns how they got in, by time.
func crowd(t *testing.T, g *limit.Gate, callers []limit.Caller, late time.Duration) (all []admission) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, c := range callers {
		wg.Go(func() {
			a := insist(t, g, c, late)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, a)
		})
	}
	wg.Wait()
	return all // they came in in this order
}

func attempts(all []admission) float64 {
	n := 0
	for _, a := range all {
		n += a.attempts
	}
	return float64(n) / float64(len(all))
}

// TestP10_Storm: a thousand clients at once, a hundred attaches a second, make
// at most two attempts on average, come in at that rate, and in time.
func TestP10_Storm(t *testing.T) {
	const clients, rate = 1000, 100
	for _, c := range []struct {
		name   string
		caller func(i int) limit.Caller
		late   time.Duration
		most   time.Duration
	}{
		{"from everywhere", person, 0, 12 * time.Second},
		{"from everywhere, a little late", person, time.Second, 14 * time.Second},
		{"from one address", func(i int) limit.Caller {
			return limit.Caller{User: fmt.Sprint("user-", i), Address: "one", Client: "phone"}
		}, 0, 15 * time.Second},
		{"sixteen of each user", func(i int) limit.Caller {
			return limit.Caller{User: fmt.Sprint("user-", i/16), Address: fmt.Sprint("10.0.0.", i/16), Client: fmt.Sprint("s_", i)}
		}, 0, 15 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := limit.NewGate(limit.GateOptions{What: "clients attaching", PerSecond: rate, Burst: 2 * rate})
				callers := make([]limit.Caller, clients)
				for i := range callers {
					callers[i] = c.caller(i)
				}
				all := crowd(t, g, callers, c.late)
				if mean := attempts(all); mean > 2 {
					t.Errorf("%.2f attempts a client", mean)
				}
				if last := all[len(all)-1].after; last > c.most {
					t.Errorf("the last one came in after %v", last)
				}
				// In no second more than the burst and the rate.
				for i := range all {
					in := 0
					for j := i; j < len(all) && all[j].after < all[i].after+time.Second; j++ {
						in++
					}
					if in > 3*rate {
						t.Fatalf("%d came in within a second from %v on", in, all[i].after)
					}
				}
			})
		})
	}
}

// TestP10_OneUserKeepsNobodyOut: a user who asks without end, for one client or
// for as many as it likes, obeys nothing and never comes in its slots, costs
// others little.
func TestP10_OneUserKeepsNobodyOut(t *testing.T) {
	const rate = 100
	for _, c := range []struct {
		name   string
		caller func(i int) limit.Caller
		gives  time.Duration // up after this long
	}{
		{"one client", func(int) limit.Caller { return limit.Caller{User: "mallory", Address: "evil", Client: "x"} }, time.Hour},
		{"many clients", func(i int) limit.Caller {
			return limit.Caller{User: "mallory", Address: "evil", Client: fmt.Sprint(i)}
		}, time.Hour},
		{"many clients that go away", func(i int) limit.Caller {
			return limit.Caller{User: "mallory", Address: "evil", Client: fmt.Sprint(i)}
		}, time.Millisecond},
		{"many users", func(i int) limit.Caller {
			return limit.Caller{User: fmt.Sprint("mallory-", i), Address: "evil", Client: "x"}
		}, time.Hour},
	} {
		for _, same := range []bool{false, true} {
			if same && c.name == "many users" {
				continue // who share an address with a thousand users share its part
			}
			t.Run(fmt.Sprintf("%s, same address %v", c.name, same), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g := limit.NewGate(limit.GateOptions{What: "clients attaching", PerSecond: rate, Burst: 2 * rate})
					ctx, stop := context.WithCancel(t.Context())
					var attack sync.WaitGroup
					for worker := range 50 {
						attack.Go(func() {
							for i := worker; ctx.Err() == nil; i += 50 {
								brief, cancel := context.WithTimeout(ctx, c.gives)
								_ = g.Enter(brief, c.caller(i))
								cancel()
								time.Sleep(10 * time.Millisecond) // 5,000 a second
							}
						})
					}
					time.Sleep(10 * time.Second) // it has taken what there is to take
					var honest []limit.Caller
					for i := range 25 {
						h := person(i)
						if same {
							h.Address = "evil"
						}
						honest = append(honest, h)
					}
					all := crowd(t, g, honest, 0)
					stop()
					attack.Wait()
					if mean, last := attempts(all), all[len(all)-1].after; mean > 1.5 || last > 3*time.Second {
						t.Errorf("%.2f attempts, the last one in after %v", mean, last)
					}
				})
			})
		}
	}
}

// TestGateKeepsSlots: who comes in its slot, or a little late, gets in whatever
// others do; who comes early is told of the same slot; who comes much too late
// is a newcomer.
func TestGateKeepsSlots(t *testing.T) {
	for _, c := range []struct {
		name        string
		early, late time.Duration
		in          bool
	}{
		{"in time", 0, 0, true},
		{"early", time.Second, 0, true},
		{"much too early", 5 * time.Second, 0, true}, // it is told again, and comes in time
		{"late", 0, 9 * time.Second, true},
		{"much too late", 0, 11 * time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := limit.NewGate(limit.GateOptions{What: "clients attaching", PerSecond: 1, Burst: 1})
				crowd := 0
				crowded := func() { // whoever comes now queues
					for range 20 {
						crowd++
						go func() {
							_ = g.Enter(t.Context(), limit.Caller{User: fmt.Sprint("user-", crowd), Address: "crowd", Client: "phone"})
						}()
						synctest.Wait()
					}
				}
				me := limit.Caller{User: "me", Address: "crowd", Client: "phone"}
				crowded()
				slot := refused(t, g.Enter(t.Context(), me))
				at := time.Now().Add(slot)
				if slot < 6*time.Second {
					t.Fatalf("the slot is in %v", slot)
				}
				if c.early > 0 {
					time.Sleep(slot - c.early)
					start := time.Now()
					if err := g.Enter(t.Context(), me); err == nil {
						if got := time.Now(); !got.Equal(at) {
							t.Errorf("waited %v for a slot in %v", got.Sub(start), c.early)
						}
						return
					} else if again := refused(t, err); again != c.early {
						t.Fatalf("told to come in %v, and then in %v", slot, again)
					}
				}
				time.Sleep(time.Until(at) + c.late)
				crowded()
				start := time.Now()
				err := g.Enter(t.Context(), me)
				if in := err == nil && time.Since(start) < 2*time.Second; in != c.in {
					t.Errorf("in after %v: %v", time.Since(start), err)
				}
			})
		})
	}
}

// TestGateIsBounded: slots are given out a minute ahead and no more, whoever
// asks; those in which nobody comes are forgotten.
func TestGateIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := limit.NewGate(limit.GateOptions{What: "clients attaching", PerSecond: 1000, Burst: 10, Wait: time.Millisecond})
		var told []time.Duration
		for i := range 150_000 {
			if err := g.Enter(t.Context(), person(i)); err != nil {
				told = append(told, refused(t, err))
			}
		}
		if longest := slices.Max(told); longest > time.Minute {
			t.Errorf("somebody is told to come in %v", longest)
		}
		if n := g.Slots(); n > 1<<15 {
			t.Errorf("%d slots are kept", n)
		}
		time.Sleep(2 * time.Minute)
		_ = g.Enter(t.Context(), person(0))
		if n := g.Slots(); n != 0 {
			t.Errorf("%d slots are kept for nobody", n)
		}
	})
}

// TestGateGivesUp: who goes away while waiting leaves the turn to others.
func TestGateGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := limit.NewGate(limit.GateOptions{What: "clients", PerSecond: 1, Burst: 1, Wait: time.Minute})
		for i := range 2 { // the bursts
			if err := g.Enter(t.Context(), person(i)); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		var gone sync.WaitGroup
		for i := range 10 {
			gone.Go(func() {
				if err := g.Enter(ctx, person(10+i)); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("waited past the deadline: %v", err)
				}
			})
		}
		gone.Wait()
		start := time.Now()
		if err := g.Enter(t.Context(), person(99)); err != nil || time.Since(start) > 2*time.Second {
			t.Fatalf("the turns given up are not there: %v after %v", err, time.Since(start))
		}
	})
}
