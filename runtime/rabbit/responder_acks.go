package rabbit

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

// acks settles the deliveries of one channel, and of no other: with the
// channel it ends, and what comes late is dropped.
type acks struct {
	ch    amqp.Acknowledger
	batch int // finished deliveries that do not wait for more

	mu       sync.Mutex
	first    uint64 // delivery tag of states[0]
	states   []settlement
	finished int       // how many of states are finished
	waiting  time.Time // since when the first of them has been
	timer    *time.Timer
	over     bool
}

type settlement uint8

const (
	open     settlement = iota // its calls are under way
	finished                   // to be acknowledged
	settled                    // the broker was told
)

// ackBatch is how many finished deliveries are acknowledged without waiting for
// more of them.
func ackBatch(concurrency int) int { return max(1, concurrency/4) }

func newAcks(ch amqp.Acknowledger, batch int) *acks {
	a := &acks{ch: ch, batch: batch, first: 1}
	a.timer = time.AfterFunc(time.Hour, a.flush)
	a.timer.Stop()
	return a
}

// delivered notes a delivery, and those with the tags before it: of two that
// come close together, the second one may be noted first.
func (a *acks) delivered(tag uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.first+uint64(len(a.states)) <= tag {
		a.states = append(a.states, open)
	}
}

// done acknowledges the delivery, soon, together with others.
func (a *acks) done(tag uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
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

// now acknowledges the delivery at once, and reports whether it could.
func (a *acks) now(tag uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over || a.ch.Ack(tag, false) != nil {
		return false
	}
	a.states[tag-a.first] = settled
	a.trim()
	return true
}

// back returns the delivery to its queue.
func (a *acks) back(tag uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over || a.ch.Nack(tag, false, true) != nil {
		return
	}
	a.states[tag-a.first] = settled
	a.trim()
}

// flush acknowledges what is finished.
func (a *acks) flush() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.send()
}

// send acknowledges what is finished: the beginning that is without a gap in
// one go, the rest one by one. a.mu is held.
func (a *acks) send() {
	if a.over || a.finished == 0 {
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
func (a *acks) trim() {
	n := 0
	for n < len(a.states) && a.states[n] == settled {
		n++
	}
	a.first += uint64(n)
	a.states = append(a.states[:0], a.states[n:]...)
}

func (a *acks) isOver() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.over
}

// close drops all that comes from now on.
func (a *acks) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	a.timer.Stop()
}
