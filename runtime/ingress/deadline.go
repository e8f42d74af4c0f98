package ingress

import (
	"errors"
	"os"
	"sync"
	"time"
)

// deadline is a deadline of a connection. The zero time is never.
//
// net/http moves them eight times for each request, there and back, mostly to
// a later time and while nobody reads. Each move of a socket's deadline is a
// timer and two looks at the clock; together they took 8 % of the CPU that a
// result costs which is at hand. So the socket is told only of a deadline that
// comes earlier than the one it has: it may end an operation too early, which
// then goes on.
type deadline struct {
	apply func(time.Time) error // sets the socket's

	mu      sync.Mutex
	want    time.Time
	socket  time.Time // the socket's; never later than want while an operation is under way
	expired bool      // an operation ran into the socket's
	busy    int       // operations under way
}

// move sets the deadline, for an operation that is under way, too.
func (d *deadline) move(t time.Time) error {
	d.mu.Lock()
	d.want = t
	cut := d.busy > 0 && earlier(t, d.socket)
	if cut {
		d.socket = t
	}
	d.mu.Unlock()
	for cut {
		if err := d.apply(t); err != nil { // without the lock: it wakes somebody who wants it
			return err
		}
		d.mu.Lock()
		cut, t = earlier(d.socket, t), d.socket // moved by another meanwhile, and perhaps put back by this one
		d.mu.Unlock()
	}
	return nil
}

// interrupt ends an operation that is under way, too early.
func (d *deadline) interrupt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy > 0 {
		_ = d.apply(time.Now()) // a closed connection has none under way
	}
}

// begin is called before an operation. It fails if it is too late for one.
func (d *deadline) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.expired || earlier(d.want, d.socket) {
		if d.passed() {
			return os.ErrDeadlineExceeded
		}
		if err := d.apply(d.want); err != nil {
			return err
		}
		d.socket, d.expired = d.want, false
	}
	d.busy++
	return nil
}

// tooEarly is called after an operation with its error. It reports whether the
// socket's deadline ended it, and not the one that is wanted.
func (d *deadline) tooEarly(err error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy--
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	d.expired = true
	return !d.passed()
}

// never reports whether there is none.
func (d *deadline) never() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.want.IsZero()
}

func (d *deadline) passed() bool { return !d.want.IsZero() && !time.Now().Before(d.want) }

func earlier(a, b time.Time) bool { return !a.IsZero() && (b.IsZero() || a.Before(b)) }
