package responder

import (
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// delivery is one message with its calls.
type delivery struct {
	session     *session
	tag         uint64
	firstTag    string // of its first call, as the caller knows it
	replyTo     string
	key         string
	frames      bool // the caller takes several replies in one message
	settle      ackTime
	redelivered bool
	arrived     time.Time

	mu    sync.Mutex
	begun bool // one of its calls has started
	acked bool
	lost  bool // the broker delivers it again: none of its calls may start
	left  int  // calls without their reply sent
}

// ackTime is when a delivery is acknowledged.
type ackTime uint8

const (
	afterReply  ackTime = iota // after the last of its replies
	beforeReply                // immediately before its only reply, on the same channel
	beforeRun                  // before the first of its calls starts
)

// ackTimeOf returns when a delivery of that many calls is acknowledged. Calls
// of a function that is redelivered and writes are not batched by callers of
// Rabbet: the acknowledgement of the first reply would take the other calls of
// the message along.
func (r *Responder) ackTimeOf(redelivered bool, calls int) ackTime {
	switch {
	case redelivered || !r.fn.Redeliver:
		return beforeRun
	case r.fn.ReadOnly:
		return afterReply
	case calls > 1:
		return beforeRun
	}
	return beforeReply
}

// begin reports whether a call of d may start: not when its connection is gone
// and the broker will deliver it again. The first one to start acknowledges d,
// if that comes first. It tells the caller, unless the function only reads.
func (d *delivery) begin(worker string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lost || d.begun {
		return !d.lost
	}
	if d.settle == beforeRun {
		d.acked = d.session.acks.AckNow(d.tag)
		d.lost = !d.acked
	} else {
		d.lost = d.session.acks.IsClosed()
	}
	d.begun = !d.lost
	if d.begun && d.settle != afterReply && d.frames && d.replyTo != "" {
		// An error of the channel ends its session.
		_ = d.session.ch.Publish("", d.replyTo, false, false, wire.TakenMessage(d.firstTag, worker, d.acked))
	}
	return d.begun
}

// answer prepares d for a reply to one of its calls. It returns false if there
// must be none, because the broker delivers the call again.
func (d *delivery) answer() bool {
	if d.settle != beforeReply {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.acked && !d.lost {
		d.acked = d.session.acks.AckNow(d.tag)
		d.lost = !d.acked
	}
	return !d.lost
}

// lose notes that the channel of d is gone. It returns true if the broker
// delivers d again and a run of it should end.
func (d *delivery) lose() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.settle != beforeReply || d.acked {
		return false
	}
	d.lost = true
	return true
}

// returnable reports whether d can go back to the queue as if it had never come.
func (d *delivery) returnable() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.begun && d.settle != beforeRun && !d.acked
}

// claimRequeue reports whether d is still to be given back; the first to ask does it.
func (d *delivery) claimRequeue() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := !d.acked
	d.acked = true
	return first
}

// sent notes that one more call of d has its reply under way.
func (d *delivery) sent() {
	d.mu.Lock()
	d.left--
	settle := d.left == 0 && !d.acked
	if settle {
		d.acked = true
	}
	d.mu.Unlock()
	if settle {
		d.session.acks.Done(d.tag)
	}
}
