package history

import (
	"fmt"
	"slices"
	"strings"
)

// Violation is a broken promise.
type Violation struct {
	// Promise is its id, as P2; Rule the rule of the package comment.
	Promise, Rule string
	// Detail says what is wrong.
	Detail string
	// Excerpt is the records that show it, in the order of time.
	Excerpt []Record
}

func (v Violation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s", v.Promise, v.Rule, v.Detail)
	for _, r := range v.Excerpt {
		fmt.Fprintf(&b, "\n  %v", r)
	}
	return b.String()
}

// maxViolations bounds what Check returns for each rule: the first ones tell.
const maxViolations = 5

// Check returns what is wrong with a history, the most fundamental first.
// Records of one client are in the order in which they were made; the whole is
// put in the order of time.
func Check(records []Record) []Violation {
	records = slices.Clone(records)
	slices.SortStableFunc(records, func(a, b Record) int { return int(max(-1, min(1, a.T-b.T))) })
	h := index(records)
	c := &checker{h: h, found: make(map[string]int)}
	for _, rule := range []func(*checker){
		checkFinal, checkPublishes, checkOrder, checkClients, checkFences, checkResumes,
	} {
		rule(c)
	}
	return c.violations
}

type checker struct {
	h          *history
	violations []Violation
	found      map[string]int // by rule
}

func (c *checker) report(promise, rule, detail string, excerpt ...Record) {
	if c.found[rule]++; c.found[rule] > maxViolations {
		return
	}
	excerpt = slices.DeleteFunc(excerpt, func(r Record) bool { return r.K == "" })
	slices.SortStableFunc(excerpt, func(a, b Record) int { return int(max(-1, min(1, a.T-b.T))) })
	c.violations = append(c.violations, Violation{promise, rule, detail, excerpt})
}

// place is an offset of a room under an incarnation.
type place struct {
	room, inc string
	off       uint64
}

func placeOf(r Record) place { return place{r.Room, r.Inc, r.Off} }

// call is one attempt of a publish or an attach, with its end.
type call struct {
	call, end Record // end.K is empty if there was none: unknown
}

// idOf is a client id in its room.
type idOf struct{ room, id string }

// history is the records by what the rules ask for.
type history struct {
	records []Record
	final   map[string][]Record // by room, in the order read
	at      map[place]Record    // of the final log
	byID    map[idOf][]Record   // of the final log
	oldest  map[string]uint64   // of the final log
	calls   map[idOf][]call     // publishes
	attach  []call
	clients []string            // in order of appearance
	steps   map[string][]Record // by client: all but publishes and the final log

	greatest map[string][]Record // see rising; made when first asked for
}

func index(records []Record) *history {
	h := &history{
		records: records,
		final:   make(map[string][]Record), at: make(map[place]Record), byID: make(map[idOf][]Record),
		oldest: make(map[string]uint64), calls: make(map[idOf][]call), steps: make(map[string][]Record),
	}
	open := make(map[string]int)       // attaches under way, by client
	asked := make(map[[3]string][]int) // publishes under way, by client, room and id
	for _, r := range records {
		switch r.K {
		case Final:
			h.addFinal(r)
			continue
		case Publish:
			h.addPublish(r, asked)
			continue
		case Attach:
			if r.Ph == Call {
				open[r.P] = len(h.attach)
				h.attach = append(h.attach, call{call: r})
			} else if i, ok := open[r.P]; ok {
				h.attach[i].end = r
				delete(open, r.P)
			}
		}
		if _, seen := h.steps[r.P]; !seen {
			h.clients = append(h.clients, r.P)
		}
		h.steps[r.P] = append(h.steps[r.P], r)
	}
	return h
}

func (h *history) addFinal(r Record) {
	if _, seen := h.oldest[r.Room]; !seen {
		h.oldest[r.Room] = r.Off
	}
	h.final[r.Room] = append(h.final[r.Room], r)
	h.at[placeOf(r)] = r
	if r.ID != "" {
		h.byID[idOf{r.Room, r.ID}] = append(h.byID[idOf{r.Room, r.ID}], r)
	}
}

func (h *history) addPublish(r Record, asked map[[3]string][]int) {
	id := idOf{r.Room, r.ID}
	key := [3]string{r.P, r.Room, r.ID}
	if r.Ph == Call {
		asked[key] = append(asked[key], len(h.calls[id]))
		h.calls[id] = append(h.calls[id], call{call: r})
		return
	}
	if open := asked[key]; len(open) > 0 {
		h.calls[id][open[0]].end = r
		asked[key] = open[1:]
	}
}
