package channel

import (
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// ackDelay is how long a finished delivery may wait for others to be
// acknowledged with it. Only calls of functions that only read are acknowledged
// after their reply: one of them that is delivered again does no harm.
//
// After half of that, the next one to finish takes the others along: its reply
// has just left, so the broker is at the acknowledgment while the caller is at
// the reply, and not at a call.
const ackDelay = 50 * time.Millisecond

// Acks settles the deliveries of one channel, and of no other: with the
// channel it ends, and what comes late is dropped.
type Acks struct {
	ch    amqp.Acknowledger
	batch int // finished deliveries that do not wait for more

	mu       sync.Mutex
	first    uint64 // delivery tag of states[0]
	states   []settlement
	finished int       // how many of states are finished
	waiting  time.Time // since when the first of them has been
	timer    *time.Timer
	closed   bool
}

type settlement uint8

const (
	open     settlement = iota // its calls are under way
	finished                   // to be acknowledged
	settled                    // the broker was told
)

func NewAcks(ch amqp.Acknowledger, batch int) *Acks {
	a := &Acks{ch: ch, batch: batch, first: 1}
	a.timer = time.AfterFunc(time.Hour, a.Flush)
	a.timer.Stop()
	return a
}

// Delivered notes a delivery, and those with the tags before it: of two that
// come close together, the second one may be noted first.
func (a *Acks) Delivered(tag uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.first+uint64(len(a.states)) <= tag {
		a.states = append(a.states, open)
	}
}

// Done acknowledges the delivery, soon, together with others.
func (a *Acks) Done(tag uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	a.states[tag-a.first] = finished
	a.finished++
	now := time.Now()
	if a.finished == 1 {
		a.waiting = now
	}
	switch {
	case a.finished >= a.batch, now.Sub(a.waiting) > ackDelay/2:
		a.send()
	case a.finished == 1:
		a.timer.Reset(ackDelay)
	}
}

// AckNow acknowledges the delivery at once, and reports whether it could.
func (a *Acks) AckNow(tag uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.ch.Ack(tag, false) != nil {
		return false
	}
	a.states[tag-a.first] = settled
	a.trim()
	return true
}

// Requeue returns the delivery to its queue.
func (a *Acks) Requeue(tag uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.ch.Nack(tag, false, true) != nil {
		return
	}
	a.states[tag-a.first] = settled
	a.trim()
}

// Flush acknowledges what is finished.
func (a *Acks) Flush() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.send()
}

// send acknowledges what is finished: the beginning that is without a gap in
// one go, the rest one by one. a.mu is held.
func (a *Acks) send() {
	if a.closed || a.finished == 0 {
		return
	}
	gap, last := false, -1 // index of the last finished one before the first gap
	for i, state := range a.states {
		switch {
		case state == open:
			gap = true
		case state == finished && !gap:
			last = i
		case state == finished:
			_ = a.ch.Ack(a.first+uint64(i), false) // the connection's end tells, and settles it
		}
		if state == finished {
			a.states[i] = settled
		}
	}
	if last >= 0 {
		// Multiple takes in all before it: each is finished, or settled already.
		_ = a.ch.Ack(a.first+uint64(last), true)
	}
	a.finished = 0
	a.trim()
}

// trim forgets the settled ones at the beginning. a.mu is held.
func (a *Acks) trim() {
	n := 0
	for n < len(a.states) && a.states[n] == settled {
		n++
	}
	a.first += uint64(n)
	a.states = append(a.states[:0], a.states[n:]...)
}

func (a *Acks) IsClosed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closed
}

// Close drops all that comes from now on.
func (a *Acks) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.timer.Stop()
}
