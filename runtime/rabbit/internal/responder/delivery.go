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
	firstTag    string // of its first call
	replyTo     string
	key         string
	frames      bool // the caller understands frames
	settle      ackTime
	redelivered bool
	arrived     time.Time

	mu    sync.Mutex
	begun bool // a call has started
	acked bool
	lost  bool // the broker delivers it again: no call may start
	left  int  // calls whose reply was not sent yet
}

// ackTime is when a delivery is acknowledged.
type ackTime uint8

const (
	afterReply  ackTime = iota // after the last of its replies
	beforeReply                // immediately before its only reply, on the same channel
	beforeRun                  // before the first of its calls starts
)

// ackTimeOf returns when a delivery of that many calls is acknowledged. Rabbet does
// not batch calls of a function that writes and is redelivered, because the
// acknowledgement of the first reply would cover the other calls of the message.
// Another client may send such a batch: it is acknowledged before the run.
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

// begin reports whether a call of d may start. It may not if the channel is closed
// and the broker delivers the call again. The first call to start acknowledges d,
// if that comes before the run, and tells the caller, unless the function is
// read-only.
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
		// If this fails, the channel is closed, which ends the session.
		_ = d.session.ch.Publish("", d.replyTo, false, false, wire.TakenMessage(d.firstTag, worker, d.acked))
	}
	return d.begun
}

// answer prepares d for a reply to one of its calls. It returns false if no reply
// may be sent because the broker delivers the call again.
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

// lose notes that the channel of d is closed. It returns true if the broker
// delivers d again, so that its run should be canceled.
func (d *delivery) lose() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.settle != beforeReply || d.acked {
		return false
	}
	d.lost = true
	return true
}

// returnable reports whether d may be requeued: no call has started, and it is not
// acknowledged.
func (d *delivery) returnable() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.begun && d.settle != beforeRun && !d.acked
}

// claimRequeue reports whether the caller must requeue d. It returns true once.
func (d *delivery) claimRequeue() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := !d.acked
	d.acked = true
	return first
}

// sent notes that the reply to one more call of d was sent. After the last one, d
// is acknowledged.
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
