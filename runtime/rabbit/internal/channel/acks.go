package channel

import (
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// AckDelay is how long a finished delivery may wait to be acknowledged together with
// others. Deliveries that are acknowledged this way may be delivered again after
// they were processed.
//
// After half of that time, the next delivery to finish flushes the others: its reply
// was just sent, so that the broker handles the acknowledgements while the caller
// handles the reply.
const ackDelay = 50 * time.Millisecond

// Acks settles the deliveries of one channel. It ends with the channel; later
// acknowledgements are dropped.
type Acks struct {
	ch    amqp.Acknowledger
	batch int // this many finished deliveries are acknowledged at once

	mu       sync.Mutex
	first    uint64 // delivery tag of states[0]
	states   []settlement
	finished int       // number of finished states
	waiting  time.Time // since when the first of them is finished
	timer    *time.Timer
	closed   bool
}

type settlement uint8

const (
	open     settlement = iota // being processed
	finished                   // to be acknowledged
	settled                    // acknowledged or requeued
)

// NewAcks returns the Acks of a channel. batch is how many finished deliveries are
// acknowledged without waiting for more.
func NewAcks(ch amqp.Acknowledger, batch int) *Acks {
	a := &Acks{ch: ch, batch: batch, first: 1}
	a.timer = time.AfterFunc(time.Hour, a.Flush)
	a.timer.Stop()
	return a
}

// Delivered notes a delivery, and those with lower tags: of two deliveries, the
// second one may be noted first.
func (a *Acks) Delivered(tag uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.first+uint64(len(a.states)) <= tag {
		a.states = append(a.states, open)
	}
}

// Done acknowledges the delivery soon, together with others.
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

// AckNow acknowledges the delivery immediately, and reports whether it could.
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

// send acknowledges what is finished: those before the first open delivery with one
// multiple ack, the others one by one. The caller must hold a.mu.
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
			_ = a.ch.Ack(a.first+uint64(i), false) // if it fails the channel is gone, and the delivery is requeued
		}
		if state == finished {
			a.states[i] = settled
		}
	}
	if last >= 0 {
		// Multiple includes all lower tags: each of them is finished or settled.
		_ = a.ch.Ack(a.first+uint64(last), true)
	}
	a.finished = 0
	a.trim()
}

// trim removes the settled states at the beginning. The caller must hold a.mu.
func (a *Acks) trim() {
	n := 0
	for n < len(a.states) && a.states[n] == settled {
		n++
	}
	a.first += uint64(n)
	a.states = append(a.states[:0], a.states[n:]...)
}

// IsClosed reports whether Close was called.
func (a *Acks) IsClosed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closed
}

// Close drops all later acknowledgements.
func (a *Acks) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.timer.Stop()
}
