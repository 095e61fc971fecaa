package session

import (
	"context"
	"sync"
)

// keylock is a set of locks by name. A wait for one ends with the context.
type keylock struct {
	mu   sync.Mutex
	held map[string]*keywait
}

type keywait struct {
	free    chan struct{} // holds one token while nobody holds the lock
	waiters int           // holder included; guarded by keylock.mu
}

// lock takes the lock of that name and returns what releases it.
func (k *keylock) lock(ctx context.Context, name string) (unlock func(), err error) {
	k.mu.Lock()
	w := k.held[name]
	if w == nil {
		if k.held == nil {
			k.held = make(map[string]*keywait)
		}
		w = &keywait{free: make(chan struct{}, 1)}
		w.free <- struct{}{}
		k.held[name] = w
	}
	w.waiters++
	k.mu.Unlock()
	select {
	case <-w.free:
		return func() {
			w.free <- struct{}{}
			k.leave(name, w)
		}, nil
	case <-ctx.Done():
		k.leave(name, w)
		return nil, ctx.Err()
	}
}

func (k *keylock) leave(name string, w *keywait) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w.waiters--; w.waiters == 0 {
		delete(k.held, name)
	}
}
