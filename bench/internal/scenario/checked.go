package scenario

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/reprise-chat/reprise/bench/internal/load"
	"github.com/reprise-chat/reprise/bench/internal/report"
	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/internal/history"
	"github.com/reprise-chat/reprise/internal/history/witness"
)

// Checked holds the promises while the server is under full load: beside a
// saturated fan-out, clients of the SDK talk in rooms of their own, come and
// go, and write down what happens; the history checker judges it.
func (b *Bench) Checked(ctx context.Context) error {
	subscribers := b.size(200)
	name := fmt.Sprintf("%d saturated subscribers, %d witnesses", subscribers, witnesses)
	err := b.each(ctx, "checked", name, []load.Target{b.reprise()}, func(r *round) (report.Sample, error) {
		return r.checked(subscribers)
	})
	if err != nil {
		return err
	}
	b.Report.Notes = append(b.Report.Notes,
		"checked: the history checker found no violation of a promise under the load of a saturated fan-out.")
	return nil
}

const (
	witnesses      = 6
	witnessedRooms = 2
)

func (r *round) checked(subscribers int) (report.Sample, error) {
	f, err := r.flood(subscribers, 4096)
	if err != nil {
		return nil, err
	}
	var rooms []string
	for i := range witnessedRooms {
		rooms = append(rooms, fmt.Sprintf("witnessed-%d", i))
	}
	if err := r.setup(users("witness", witnesses, rooms...)); err != nil {
		return nil, err
	}
	trace := history.NewTrace(nil)
	var from, to uint64
	u, err := r.during(func() error {
		r.loop.Call(func() { from = f.delivered })
		defer r.loop.Call(func() { to = f.delivered })
		return r.witness(trace, rooms)
	})
	if err != nil {
		return nil, err
	}
	r.loop.Call(func() { f.stopped = true })
	if violations := history.Check(trace.Records()); len(violations) > 0 {
		return nil, fmt.Errorf("%d violations of promises, the first: %v", len(violations), violations[0])
	}
	return u.sample(to - from), nil
}

// witness has the witnesses talk, and then reads the whole logs.
func (r *round) witness(trace *history.Trace, rooms []string) error {
	var wg sync.WaitGroup
	errs := make([]error, witnesses)
	for i := range witnesses {
		wg.Go(func() { errs[i] = r.talk(trace, fmt.Sprintf("witness%d", i), rooms) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	sdk, err := r.sdk("witness0", nil)
	if err != nil {
		return err
	}
	defer sdk.Close()
	for _, room := range rooms {
		log, _, err := witness.ReadLog(r.ctx, sdk, room, 0)
		if err != nil {
			return err
		}
		for _, record := range log {
			trace.Add(record)
		}
	}
	return nil
}

func (r *round) sdk(user string, w *witness.Client) (*reprise.Client, error) {
	cfg := reprise.Config{
		Logger:    slog.New(slog.DiscardHandler),
		Addresses: []string{r.srv.Addr.String()},
		Token:     func(context.Context) (string, error) { return "dev:" + user, nil },
	}
	if w != nil {
		cfg.DialOptions = []grpc.DialOption{grpc.WithStreamInterceptor(w.Observe)}
	}
	return reprise.New(cfg)
}

// talk is one witness: it runs, publishes, is stopped in the middle, and
// resumes where it was.
func (r *round) talk(trace *history.Trace, name string, rooms []string) (err error) {
	w := witness.New(name, trace, nil)
	sdk, err := r.sdk(name, w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sdk.Close()) }()
	sent := 0
	for range 2 {
		ctx, cancel := context.WithCancel(r.ctx)
		ran := make(chan error, 1)
		go func() { ran <- sdk.Run(ctx, w) }()
		for end := time.Now().Add(r.duration() / 2); time.Now().Before(end) && err == nil; sent++ {
			id := fmt.Sprintf("m%d", sent)
			_, err = w.Publish(rooms[sent%len(rooms)], id, func() (reprise.Receipt, error) {
				return sdk.Send(r.ctx, rooms[sent%len(rooms)], "text of "+id, reprise.WithClientID(id))
			})
		}
		cancel()
		err = errors.Join(err, <-ran)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
