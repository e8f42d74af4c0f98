package responder

import (
	"context"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

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

	mu      sync.Mutex
	begun   bool // a call has started
	acked   bool
	confirm *amqp.DeferredConfirmation // of the message after the acknowledgement before the run; nil without one
	lost    bool                       // the broker delivers it again: no call may start
	running int                        // calls that have not ended yet
	left    int                        // calls whose reply was not sent yet
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

// begin prepares a call of d to start. The first call acknowledges d, if that comes
// before the run, and tells the caller, unless the function is read-only. ok is false
// if the call may not start, because the channel is closed or ctx is done. again then
// says whether the broker delivers the call again.
//
// After an acknowledgement before the run, begin waits until the broker has it: the
// broker confirms a message after it has handled what the channel sent before. If
// the acknowledgement of a running call were lost, the call could expire in its queue,
// and its caller would be told that it was not executed.
func (d *delivery) begin(ctx context.Context, worker string) (ok, again bool) {
	d.mu.Lock()
	if !d.lost && !d.begun {
		d.start(worker)
	}
	lost, acked, confirm := d.lost, d.acked, d.confirm
	d.mu.Unlock()
	if lost || confirm == nil {
		return !lost, !acked
	}
	select {
	case <-confirm.Done():
		return confirm.Acked(), false
	case <-ctx.Done():
		return false, false
	}
}

// start is the part of begin for the first call of d. The caller must hold d.mu.
func (d *delivery) start(worker string) {
	if d.settle == beforeRun {
		d.acked = d.session.acks.AckNow(d.tag)
		d.lost = !d.acked
	} else {
		d.lost = d.session.acks.IsClosed()
	}
	d.begun = !d.lost
	if d.lost || d.settle == afterReply {
		return
	}
	queue := d.replyTo
	if !d.frames || queue == "" { // the caller does not understand the message
		if !d.session.confirms {
			return
		}
		queue = "" // there is no such queue: only the confirm is needed
	}
	confirm, err := d.session.ch.PublishWithDeferredConfirm("", queue, false, false, wire.TakenMessage(d.firstTag, worker, d.acked))
	d.confirm, d.lost = confirm, err != nil
}

// ended notes that a call of d has ended, and reports whether it is the last one.
func (d *delivery) ended() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running--
	return d.running <= 0
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
