package robustness

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// TestP1_DiskReserve fills the disk of the real server beyond its reserve, under
// load, and makes room again: meanwhile everybody resumes, and afterwards every
// room takes writes and every client has everything.
func TestP1_DiskReserve(t *testing.T) {
	needFaults(t)
	t.Parallel()
	crossings := times(t, "REPRISE_CROSSINGS", 5)
	d := newDisk(t, 1<<30, os.Getenv("REPRISE_CROSSINGS") != "") // a sparse file
	p := newProcess(t, tags())
	p.dir = filepath.Join(d.dir, "data")
	p.start()
	l := newLoad(t, p, loadConfig{every: 5 * time.Millisecond})
	for crossing := range crossings {
		l.talk()
		ballast := d.fill()
		p.untilTaking(false)
		if code := p.status("/readyz"); code != http.StatusOK {
			t.Errorf("/readyz answers %d while reads and resumes go on", code)
		}
		for i := range l.clients { // everybody resumes while the disk is full
			l.cut(i)
		}
		l.openAll(p)
		time.Sleep(rand.N(300 * time.Millisecond)) // the moment is what is random
		heads := make(map[string]uint64)
		for _, room := range l.rooms {
			heads[room] = l.head(room)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		p.untilTaking(true)
		emptied := time.Now()
		l.wait("every room takes writes", func() string {
			for room, before := range heads {
				if l.head(room) <= before {
					return room + " does not"
				}
			}
			return ""
		})
		l.recovered(emptied)
		l.openAll(p)
		if (crossing+1)%killsAWindow == 0 {
			l.check()
		}
	}
	p.stop()
	if out, err := p.run("check", p.dir); err != nil {
		t.Errorf("check: %v\n%s", err, out)
	}
	p.start()
	l.finish("disk filled beyond its reserve, and emptied", crossings)
}

// untilTaking waits until the server says that it takes writes, or that it
// does not.
func (p *process) untilTaking(want bool) {
	p.t.Helper()
	for limit := time.Now().Add(settleTimeout); ; time.Sleep(10 * time.Millisecond) {
		if takes := p.metrics()["reprise_writes_refused"] == 0; takes == want {
			return
		}
		if time.Now().After(limit) {
			p.t.Fatalf("not within %v: writes taken: %t", settleTimeout, want)
		}
	}
}

// openAll has every user open a session: it gets all rooms.
func (l *load) openAll(p *process) {
	l.t.Helper()
	conn, err := grpc.NewClient(p.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		l.t.Fatal(err)
	}
	defer conn.Close()
	for _, m := range l.clients {
		if rooms, err := openOnce(conn, m.Name()); err != nil || rooms != len(m.rooms) {
			l.t.Errorf("%s opens a session with %d of %d rooms: %v", m.Name(), rooms, len(m.rooms), err)
		}
	}
}

// openOnce returns how many rooms a new session of a user gets.
func openOnce(conn *grpc.ClientConn, user string) (rooms int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer dev:"+user)
	s, err := reprisev1.NewChatServiceClient(conn).Open(ctx, &reprisev1.OpenRequest{})
	if err != nil {
		return 0, err
	}
	for {
		f, err := s.Recv()
		switch {
		case err != nil:
			return rooms, err
		case f.GetRoomState() != nil:
			rooms++
		case f.GetCaughtUp() != nil && f.GetCaughtUp().GetRoom() == "":
			return rooms, nil
		}
	}
}

// fill leaves a third of the server's reserve, 5 % of the disk, free, and
// returns the name of what fills it. Nothing is written.
func (d *disk) fill() (ballast string) {
	d.t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(d.dir, &fs); err != nil {
		d.t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(d.dir, "ballast"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	block := fs.Bsize
	take := int64(fs.Bavail)*block - int64(fs.Blocks)*block/60
	if err := unix.Fallocate(int(f.Fd()), 0, 0, take); err != nil {
		d.t.Fatal(err)
	}
	return f.Name()
}

// status is how the server answers a GET on its HTTP port.
func (p *process) status(path string) int {
	p.t.Helper()
	out, err := http.Get("http://" + p.http + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer out.Body.Close()
	_, _ = io.Copy(io.Discard, out.Body)
	return out.StatusCode
}
