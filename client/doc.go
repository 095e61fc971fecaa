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
//		Token:     func(context.Context) (string, error) { return reprise.DevelopmentToken("alice") },
//		Rooms:     []string{"lobby"}, // to be in
//		History:   20,                // events to begin with
//		OnState:   func(s reprise.State) { fmt.Println("--", s) },
//	})
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	return client.Run(ctx, printer{})
//
//	type printer struct{}
//
//	func (printer) HandleEvent(_ context.Context, e reprise.Event) error {
//		fmt.Println(e)
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
// ends; however often it was retried there is one event. Joining, leaving and
// creating rooms are retried likewise. What no server would take (a text that
// is not UTF-8, a room that can be none's name) is [ErrInvalid] at once.
//
// # Errors
//
// Only a Reprise server's own answer, an [Error] with a Reason, is a verdict:
// what can never succeed is not tried again, and ends the call, or Run if it is
// the attach that is refused. Whatever else comes back on the way, a proxy's
// 403, a captive portal's page, a certificate that is not trusted, is the
// network's: it is in [State.Err] and, as a warning, in the log ([Config.Logger],
// by default to standard error), and is tried again.
//
// # Many users
//
// A Client speaks for one user, over connections of its own: one, and another
// for every 50 streams and calls at a time, because servers let only 100 of them
// on a connection and have a further one wait. So a program that serves many
// users makes a Client for each of them. It should not hand Clients a connection
// to share ([Config.DialOptions] with a dialer that multiplexes): there the
// hundred-and-first stream would wait without a word.
package reprise
