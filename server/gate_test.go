package server_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

// slotOf returns the delay that an error tells, or 0.
func slotOf(err error) time.Duration {
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			return r.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

// Attaches that cannot succeed cost the others nothing: they are refused before
// they have a turn.
func TestP10_BadKeysKeepNobodyOut(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.Limits.Attaches, o.Limits.StreamsPerConnection = 5, 1000 })
	own := n.open("bob", &reprisev1.OpenRequest{InstanceId: "bob"}).greeted() // one turn of a burst of ten
	bad := func(key string) *reprisev1.ResumeRequest {
		return &reprisev1.ResumeRequest{SessionId: "s_aaaaaaaaaaaaaaaa", ResumeKey: key}
	}
	for range 100 {
		refused(t, n.resume("mallory", bad("rk_nonsense")).end(), codes.InvalidArgument, "INVALID_FIELD")
		refused(t, n.resume("mallory", bad("rk_"+strings.Repeat("A", 54))).end(), codes.PermissionDenied, "RESUME_KEY_NOT_YOURS")
		refused(t, n.resume("mallory", bad(own.welcome.GetResumeKey())).end(), codes.PermissionDenied, "RESUME_KEY_NOT_YOURS")
		refused(t, n.open("mallory", &reprisev1.OpenRequest{History: 1001}).end(), codes.InvalidArgument, "INVALID_FIELD")
	}
	// And there is still a turn for each of these, without being sent away.
	for i := range 8 {
		n.open(fmt.Sprint("honest-", i), &reprisev1.OpenRequest{}).greeted()
	}
}

// While one user attaches without end, others need no more than two attempts:
// who is refused has a slot, and gets in when it comes in it.
func TestP10_RefusedComeInTheirSlots(t *testing.T) {
	const honest = 60
	n := serve(t, func(o *server.Options) {
		o.Limits.Attaches, o.Limits.StreamsPerConnection, o.Limits.SessionsPerUser, o.NoSync = 10, 10_000, 32, true
	})
	stop := make(chan struct{})
	var attack, clients sync.WaitGroup
	for worker := range 8 {
		attack.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
				s := n.open("mallory", &reprisev1.OpenRequest{InstanceId: fmt.Sprintf("m-%d-%d", worker, i), Ephemeral: true})
				if f, err := s.recv(); err == nil && f.GetWelcome() != nil {
					s.hangUp()
				}
			}
		})
	}
	var mu sync.Mutex
	total := 0
	for i := range honest {
		clients.Go(func() {
			user := fmt.Sprint("honest-", i)
			for attempt := 1; ; attempt++ {
				s := n.open(user, &reprisev1.OpenRequest{InstanceId: user})
				f, err := s.recv()
				if err == nil && f.GetWelcome() != nil {
					mu.Lock()
					total += attempt
					mu.Unlock()
					return
				}
				slot := slotOf(err)
				if reasonOf(err) != "RATE_LIMITED" || slot <= 0 || attempt == 4 {
					t.Errorf("attempt %d: %v", attempt, err)
					return
				}
				time.Sleep(slot)
			}
		})
	}
	clients.Wait()
	close(stop)
	attack.Wait()
	if total > 2*honest {
		t.Errorf("%d attempts of %d clients", total, honest)
	}
	t.Logf("%d attempts of %d clients", total, honest)
}
