// Package history says whether what clients saw keeps the promises.
//
// Clients, never the server, write down what they did and what they were told:
// one [Record] a step, by a [Trace]. At the end a client that was never there
// before reads each room's whole log (kind [Final]). [Check] then holds the
// records against the rules below and names the promise that broke, with the
// shortest excerpt that shows it.
//
//	rule          promise  holds when
//	lost          P1       every acknowledged publish is in the final log
//	moved         P1       ... at the offset that was acknowledged
//	unread        P1       a resume reaches every offset acknowledged before it was asked for
//	hole          P2       the final log goes from its oldest to its head, each event after the one before
//	skip          P2       a client's events and gaps follow one another: nothing is missing
//	repeat        P2       ... and nothing comes twice
//	disagree      P3       what was delivered is what the final log has at that place
//	late          P3       nothing is called a replay after its room's CaughtUp
//	duplicate     P4       a client id is in the final log once, and has one offset in every receipt
//	phantom       P4       nothing is delivered that nobody sent, or whose publish was refused
//	order         P4       of two publishes, one acknowledged before the other was asked for, the first has the smaller offset
//	fenced        P5       nothing asked for by an older attachment after the newer one's Welcome is accepted
//	turned        P5       the attach numbers of a session rise
//	leak          P7       nothing of a room is delivered between RoomClosed and the next RoomState
//	back          P8       the position at an attach is not behind one that a Checkpoint confirmed, unless the client asked for that
//
// The rules are those of Kafka's and etcd's robustness tests, told for rooms;
// the linear ones run over millions of records, and [Linearizable] checks
// windows of publishing and reading with porcupine besides.
//
// A run too long to keep whole is checked in windows. A window may end when
// every publish has its answer and every client holds the head of its rooms:
// its records are taken ([Trace.Take]), with the part of the logs that it
// added as the final ones, and each client begins the next window with a Place
// at what it holds. What crosses a window is that place, which the rules then
// hold as before.
package history
