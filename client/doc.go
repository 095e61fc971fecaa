// Package reprise is a client for Reprise: rooms that are durable, ordered
// logs of events, and a client that never loses its place in them.
//
// A program gives New the servers and a token, and Run a [Handler]. Run
// connects, and when the network, the server or the machine goes away it
// connects again, resumes its session, and goes on with the event after the
// last one that was handled:
//
//	client, err := reprise.New(reprise.Config{
//		Addresses: []string{"127.0.0.1:9090"},
//		Token:     func(context.Context) (string, error) { return "dev:alice", nil },
//	})
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	if _, err := client.Join(ctx, "lobby", 0); err != nil {
//		return err
//	}
//	go client.Send(ctx, "lobby", "hello")
//	return client.Run(ctx, printer{})
//
//	type printer struct{}
//
//	func (printer) HandleEvent(_ context.Context, e reprise.Event) error {
//		fmt.Println(e.Sender, e.Text())
//		return nil
//	}
//	func (printer) HandleGap(_ context.Context, g reprise.Gap) error       { fmt.Println(g); return nil }
//	func (printer) HandleRewind(_ context.Context, r reprise.Rewind) error { fmt.Println(r); return nil }
//
// # What a handler may rely on
//
// Events of a room come in the order of their offsets, each one after the
// other, none left out: a range that the server cannot send is handed over as
// a [Gap], a log that is not the one the client knew as a [Rewind]. The client
// checks that by itself; a stream with a hole in it is dropped and resumed.
//
// An event is handled when HandleEvent has returned nil. Then its position is
// saved in the [PositionStore], then it is acknowledged to the server, in
// that order and several at a time. So delivery is exactly once for each
// position store: a program that keeps its positions in memory sees each event
// once while it runs; one that keeps them in a file ([OpenFile]) may, after it
// was killed between handling and saving, see the last few again; and one that
// writes [Event.Position] in the same transaction as what it made of the event
// ([HandlerStore]) sees the effect of each event exactly once, whatever
// happens. Where a room begins is part of that: such a program implements
// [StartHandler], and what a room held before is handed over as a [Gap].
//
// # Slow handlers
//
// The handler runs on a goroutine of its own, never on the one that reads the
// network, and never under a lock. What it has not handled waits in a bounded
// hand-over (about [Config.Window] bytes); when that is full the client stops
// reading, the server stops sending, and nothing is lost: a slow client falls
// behind in the log, not in a queue. A handler may call any method of the
// Client, [Client.Send] included, except Close and Run.
//
// # Sending
//
// [Client.Send] retries with one client id, over reconnects and servers, until
// the server confirms that the event is durable, refuses it, or the context
// ends; however often it was retried there is one event.
package reprise
