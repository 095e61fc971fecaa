package robustness

import (
	"math/rand/v2"
	"testing"
	"time"
)

// killsAWindow is how many kills are checked together.
const killsAWindow = 20

// TestP1_Kills kills the server at random moments, under load: what was
// acknowledged is there, and nobody loses their place.
func TestP1_Kills(t *testing.T) {
	needFaults(t)
	t.Parallel()
	kills := times(t, "REPRISE_KILLS", 20)
	p := newProcess(t, tags())
	p.start()
	l := newLoad(t, p, loadConfig{})
	for kill := range kills {
		l.talk()
		time.Sleep(rand.N(700 * time.Millisecond)) // the moment is what is random
		p.kill()
		p.start()
		// Every other time the next kill may come before everybody is back.
		if up := time.Now(); kill%2 == 0 {
			l.recovered(up)
		}
		if (kill+1)%killsAWindow == 0 {
			l.check()
		}
	}
	l.finish("server killed with SIGKILL at random moments", kills)
}

// TestP1_KillsCanFail: a server that forgets what was sent is caught.
func TestP1_KillsCanFail(t *testing.T) {
	needFaults(t)
	t.Parallel()
	mustNotice(t, "forget-client-id", "TestP1_Kills", "P4 duplicate", "REPRISE_KILLS=10")
}
