package lean

import (
	"container/heap"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrClosed is why connections of a closed Loop or Conn end.
var ErrClosed = errors.New("lean: closed")

// readBytes is how much is taken from a socket at once. One buffer serves the
// whole loop.
const readBytes = 256 << 10

// Loop drives connections on one thread. Make it with NewLoop, and Close it.
type Loop struct {
	// Static.
	epoll, wake, timer int
	done               chan struct{} // closed when the thread has ended

	// Guarded by mu.
	mu     sync.Mutex
	todo   []func()
	closed bool

	// Owned by the thread.
	conns  map[int32]*Conn
	dirty  []*Conn // with bytes to be written
	spare  []*Conn // the array that dirty does not use
	timers timers
	ends   []func()
	armed  time.Time // what the timer is set to; zero: not set
	buf    []byte
	ending bool
	turns  int // how often something was to be done
}

// NewLoop starts a loop.
func NewLoop() (*Loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("lean: epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("lean: eventfd: %w", err)
	}
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("lean: timerfd: %w", err)
	}
	l := &Loop{
		epoll: epoll, wake: wake, timer: timer,
		done: make(chan struct{}), conns: make(map[int32]*Conn), buf: make([]byte, readBytes),
	}
	for _, fd := range []int{wake, timer} {
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return nil, fmt.Errorf("lean: epoll: %w", err)
		}
	}
	go l.run()
	return l, nil
}

// Close ends all connections and waits for the thread.
func (l *Loop) Close() {
	l.Do(func() { l.ending = true })
	<-l.done
}

// Do has f run on the loop's thread, soon. After Close it does nothing.
func (l *Loop) Do(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.todo = append(l.todo, f)
	if len(l.todo) == 1 {
		l.signal()
	}
}

// Call has f run on the loop's thread and waits for it. It must not be called
// on that thread.
func (l *Loop) Call(f func()) {
	ran := make(chan struct{})
	l.Do(func() { f(); close(ran) })
	select {
	case <-ran:
	case <-l.done:
	}
}

// After has f run on the loop's thread once t has come; zero: after this turn.
// Call it on that thread.
func (l *Loop) After(t time.Time, f func()) {
	if t.IsZero() {
		t = time.Now() // zero means that the timer is not set
	}
	heap.Push(&l.timers, timer{t, f})
}

// OnClose has f run when the loop is closed. Call it on the loop's thread.
func (l *Loop) OnClose(f func()) { l.ends = append(l.ends, f) }

func (l *Loop) signal() {
	one := [8]byte{1}
	_, _ = unix.Write(l.wake, one[:]) // full: it is awake already
}

func (l *Loop) run() {
	runtime.LockOSThread()
	// Unlocked at the end, so that the thread does not end with the goroutine:
	// a process that it started for somebody else may be tied to its life.
	defer runtime.UnlockOSThread()
	defer close(l.done)
	events := make([]unix.EpollEvent, 512)
	for !l.ending {
		l.flush()
		l.arm()
		n, err := unix.EpollWait(l.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(err) // a descriptor of ours is not one
		}
		l.turns++
		for _, e := range events[:max(n, 0)] {
			l.handle(e)
		}
	}
	l.mu.Lock()
	l.closed, l.todo = true, nil
	l.mu.Unlock()
	for _, c := range l.conns {
		c.fail(ErrClosed)
	}
	for _, f := range l.ends {
		f()
	}
	for _, fd := range []int{l.wake, l.timer, l.epoll} {
		_ = unix.Close(fd)
	}
}

func (l *Loop) handle(e unix.EpollEvent) {
	switch int(e.Fd) {
	case l.wake:
		l.drain(l.wake)
		l.mu.Lock()
		todo := l.todo
		l.todo = nil
		l.mu.Unlock()
		for _, f := range todo {
			f()
		}
	case l.timer:
		l.drain(l.timer)
		l.armed = time.Time{}
		l.fire()
	default:
		if c := l.conns[e.Fd]; c != nil {
			c.ready(e.Events)
		}
	}
}

func (l *Loop) drain(fd int) {
	var count [8]byte
	_, _ = unix.Read(fd, count[:]) // nothing there is as good
}

// flush writes what the callbacks of this turn have queued, one write for each
// connection.
func (l *Loop) flush() {
	for len(l.dirty) > 0 { // a write that fails may queue more
		batch := l.dirty
		l.dirty = l.spare[:0]
		for _, c := range batch {
			c.dirty = false
			if !c.closed && !c.blocked {
				c.write()
			}
		}
		l.spare = batch
	}
}

// arm sets the timer to the first of timers.
func (l *Loop) arm() {
	if len(l.timers) == 0 || l.timers[0].at.Equal(l.armed) {
		return
	}
	l.armed = l.timers[0].at
	d := max(time.Until(l.armed), 1)
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	if err := unix.TimerfdSettime(l.timer, 0, &spec, nil); err != nil {
		panic(err) // the descriptor and the time are ours
	}
}

func (l *Loop) fire() {
	for now := time.Now(); len(l.timers) > 0 && !l.timers[0].at.After(now); {
		t, _ := heap.Pop(&l.timers).(timer)
		t.f()
	}
}

// Dial begins to connect; w is told when it is done. Call it on the loop's
// thread. The address must be IPv4.
func (l *Loop) Dial(addr netip.AddrPort, w Wire) *Conn {
	c := &Conn{loop: l, wire: w, fd: -1}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		l.After(time.Time{}, func() { c.fail(fmt.Errorf("lean: socket: %w", err)) })
		return c
	}
	c.fd = fd
	l.conns[int32(fd)] = c
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // only slower without
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		l.After(time.Time{}, func() { c.fail(fmt.Errorf("lean: connect to %v: %w", addr, err)) })
		return c
	}
	c.blocked = true // until connected
	c.watched = unix.EPOLLIN | unix.EPOLLOUT
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: c.watched, Fd: int32(fd)}); err != nil {
		panic(err)
	}
	return c
}

type timer struct {
	at time.Time
	f  func()
}

// timers is a heap.
type timers []timer

func (t *timers) Len() int           { return len(*t) }
func (t *timers) Less(i, j int) bool { return (*t)[i].at.Before((*t)[j].at) }
func (t *timers) Swap(i, j int)      { (*t)[i], (*t)[j] = (*t)[j], (*t)[i] }

// Push implements heap.Interface.
func (t *timers) Push(x any) {
	v, _ := x.(timer)
	*t = append(*t, v)
}

// Pop implements heap.Interface.
func (t *timers) Pop() any {
	old := *t
	last := old[len(old)-1]
	old[len(old)-1] = timer{}
	*t = old[:len(old)-1]
	return last
}
