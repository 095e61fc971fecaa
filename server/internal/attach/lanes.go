package attach

import "time"

// lane is one of the pool's queues. The later ones go first, but not always.
type lane int

const (
	// patient is for events of crowded rooms.
	patient lane = iota
	// prompt is for other events: those of a room with ten readers do not wait
	// until five thousand of another one had their turn.
	prompt
	// urgent is for answers and control frames, which nobody should await
	// behind a thousand others.
	urgent

	laneCount
)

const (
	// crowdedRoom is how many readers a room must have for theirs to be patient.
	// (That passes over a room are held begins with far fewer.)
	crowdedRoom = 256
	// maxAhead is how many turns of other lanes may come before one of a lane in
	// which somebody waits.
	maxAhead = 4
)

// A crowd whose readers get little each costs a system call for each, a tenth of
// a second of CPU for five thousand of them. The processors would do nothing else
// meanwhile, and whoever wants something else would wait for one: Go looks at the
// network only when a processor has nothing to run, or every 10 ms. So a long
// queue is worked off with rests, in which the others have the machine. A room
// that is busy gives each reader more at a time, and needs none.
const (
	// longQueue is how many attachments must wait for there to be rests: two
	// processors do a thousand in about 16 ms.
	longQueue = 1024
	// littleBytes is what grpc-go's transport calls little: it then lets others
	// run before it writes, and holds a buffer of 32 KiB meanwhile.
	littleBytes = 1000
	// restAfter is how many turns with little to send each worker has between
	// two rests.
	restAfter = 32
	restFor   = time.Millisecond
)

// laneOf returns the lane for events of a room with so many readers.
func laneOf(readers int) lane {
	if readers >= crowdedRoom {
		return patient
	}
	return prompt
}

// again returns the lane for what is left after a turn.
func (l lane) again() lane { return min(l, prompt) }

// lanes has the attachments that wait for a turn, each in a lane at most once.
// Guarded by Pool.mu.
type lanes struct {
	queues  [laneCount]queue
	ahead   [laneCount]int // turns of other lanes since the last one of this, while somebody waited
	long    bool           // patient was longer than longQueue, and not empty since
	little  int            // turns with little to send since the last rest
	resting bool           // patient is
}

func (s *lanes) push(a *Attachment, l lane) {
	s.queues[l].push(a)
	if l == patient && s.queues[l].len() > longQueue {
		s.long = true
	}
}

// ready reports whether somebody may have a turn.
func (s *lanes) ready() bool {
	for l := range laneCount {
		if s.open(l) {
			return true
		}
	}
	return false
}

func (s *lanes) open(l lane) bool {
	return s.queues[l].len() > 0 && (l != patient || !s.resting)
}

// pop returns whose turn it is. It must be ready.
func (s *lanes) pop() (*Attachment, lane) {
	best := lane(-1)
	for l := urgent; l >= patient; l-- {
		if s.open(l) && (best < 0 || s.ahead[l] >= maxAhead) {
			best = l
		}
	}
	for l := range laneCount {
		if s.open(l) {
			s.ahead[l]++
		}
	}
	s.ahead[best] = 0
	a := s.queues[best].pop()
	if best == patient && s.queues[patient].len() == 0 {
		s.long, s.little = false, 0
	}
	return a, best
}

// sentLittle counts a patient turn that sent little, and reports whether the
// lane is to rest now.
func (s *lanes) sentLittle(workers int) (rest bool) {
	if !s.long || s.resting {
		return false
	}
	if s.little++; s.little < restAfter*workers {
		return false
	}
	s.little, s.resting = 0, true
	return true
}

// behind returns how many wait in l or a lane that goes before it, with events.
func (s *lanes) behind(l lane) int {
	n := 0
	for ; l < urgent; l++ {
		n += s.queues[l].len()
	}
	return n
}

// queue is first in, first out.
type queue struct {
	items []*Attachment
	first int // index of the oldest
}

func (q *queue) len() int { return len(q.items) - q.first }

func (q *queue) push(a *Attachment) {
	if q.first > len(q.items)/2 { // amortised: at most one move an element
		n := copy(q.items, q.items[q.first:])
		clear(q.items[n:])
		q.items, q.first = q.items[:n], 0
	}
	q.items = append(q.items, a)
}

func (q *queue) pop() *Attachment {
	a := q.items[q.first]
	q.items[q.first] = nil
	q.first++
	return a
}
