package pebble

import (
	"context"
	"time"
)

// Clock implements [store.Store].
func (s *Store) Clock(ctx context.Context) (seen time.Time, err error) {
	err = s.look(ctx, func(v *view) error {
		value, ok, err := get(v.snap, keyClock)
		if err != nil || !ok {
			return err
		}
		n, err := decodeUint64(value)
		if err != nil {
			return badRecord(keyClock, err)
		}
		seen = time.Unix(0, int64(n))
		return nil
	})
	return seen, err
}

// NoteClock implements [store.Store].
func (s *Store) NoteClock(ctx context.Context, now time.Time) error {
	o := &noteClock{awaited: newAwaited(), now: now}
	return s.do(ctx, o, o.awaited)
}

type noteClock struct {
	awaited
	now time.Time
}

func (o *noteClock) cost() (events, bytes int) { return 1, 16 }

func (o *noteClock) apply(b *batch) error {
	b.set(keyClock, encodeUint64(uint64(o.now.UnixNano())))
	return nil
}
