package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// profileHead is how long a profile is under way before what is measured
// begins: the server does not say when it has started.
const profileHead = 100 * time.Millisecond

// profile has the server's CPU profile taken while f runs, at most as long as a
// round measures, and keeps it in Bench.Profile under a name that says of what
// it is. Without such a directory, and of other servers, it only runs f. A
// server that is killed leaves no profile.
func (r *round) profile(f func() error) error {
	if r.Profile == "" || r.srv.PProf == "" {
		return f()
	}
	took := make(chan error, 1)
	go func() {
		b, err := r.srv.Profile(r.ctx, max(time.Second, r.duration()))
		if err == nil {
			err = os.WriteFile(r.profileName(), b, 0o600)
		}
		took <- err
	}()
	time.Sleep(profileHead)
	err := f()
	if lost := <-took; lost != nil {
		fmt.Fprintf(r.Progress, "%s: no profile: %v\n", r.label, lost)
	}
	return err
}

// profileName returns the first name that is not taken.
func (r *round) profileName() string {
	label := strings.Map(func(c rune) rune {
		if c == ' ' || c == '/' {
			return '-'
		}
		if c == ',' {
			return -1
		}
		return c
	}, r.label)
	for n := 1; ; n++ {
		name := filepath.Join(r.Profile, fmt.Sprintf("%s.%d.pb.gz", label, n))
		if _, err := os.Stat(name); err != nil {
			return name
		}
	}
}
