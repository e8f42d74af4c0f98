package memory

import (
	"cmp"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/host"
)

// A delivery is one message that one worker has and has not settled. The mutex of
// the Broker protects it.
type delivery struct {
	consumer *consumer
	message  *message
	event    contract.Event // that of message when it was delivered
	cancel   func()         // cancels the run
}

func (d *delivery) worker() *worker { return d.consumer.worker }

// deliver starts m, which is in no queue, at c. The caller holds the mutex of the
// Broker.
func (c *consumer) deliver(m *message) {
	d := &delivery{consumer: c, message: m, event: m.event}
	m.delivered = true
	m.queue.running++
	c.running++
	c.worker.deliveries[d] = struct{}{}
	r := &host.Run{Function: c.function.Name, Event: d.event, Settle: d.settle}
	if m.call != nil {
		m.call.run = d
		r.Deadline = m.call.deadline
	}
	d.cancel = c.worker.startRun(r)
}

// settle ends d with the result of its run: with an answer, a retry or a dead
// letter. It does nothing if d was taken from its worker before.
func (d *delivery) settle(r host.Result) contract.Decision {
	b := d.worker().broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if !d.release() {
		return contract.Decision{Outcome: contract.OutcomeRetry}
	}
	defer d.message.queue.dispatch()
	switch {
	case r.Interrupted:
		d.requeue("the worker stopped while the function ran")
		return contract.Decision{Outcome: contract.OutcomeRetry}
	case d.message.call != nil:
		return d.answer(r)
	default:
		return d.settleEvent(r)
	}
}

// answer answers the caller. The caller holds the mutex of the Broker, as it does
// for all functions below.
func (d *delivery) answer(r host.Result) contract.Decision {
	if r.Err != nil {
		err := withoutInternals(r.Err)
		d.message.call.fail(err)
		return contract.Decision{Outcome: contract.OutcomeFailed, Err: err}
	}
	reply := r.Reply
	reply.Run, reply.Worker = r.Run, d.worker().announcement.Worker
	d.message.call.succeed(reply)
	return contract.Decision{Outcome: contract.OutcomeDone}
}

// withoutInternals returns the part of a function's error that the caller may see:
// the cause and the stack of a panic stay with the worker, as over RabbitMQ.
func withoutInternals(err error) *contract.Error {
	e := contract.AsError(err)
	return &contract.Error{
		Code: e.Code, Detail: e.Detail, Fields: e.Fields, After: e.After,
		Executed: cmp.Or(e.Executed, contract.ExecutedYes),
	}
}

func (d *delivery) settleEvent(r host.Result) contract.Decision {
	m := d.message
	decision := r.Decision
	switch decision.Outcome {
	case contract.OutcomeRetry:
		m.event.Attempt = decision.Attempt
		m.event.Redelivered = false
		if m.queue.function.Ordered {
			m.queue.pauseFor(m, decision.After)
		} else {
			m.queue.pushAt(m, time.Now().Add(decision.After))
		}
	case contract.OutcomeDead:
		d.worker().broker.deadLetter(d, decision.Err)
	}
	return decision
}

// maxLosses is the number of workers that may die while they run a message, before
// the message is assumed to be the reason. It corresponds to the delivery limit of
// a quorum queue.
const maxLosses = 20

// requeue returns the message of a released delivery to the front of its queue,
// without using an attempt; the queue is not dispatched. A call that must not run
// twice, or that no other worker can run, fails with ErrLost and detail instead.
func (d *delivery) requeue(detail string) {
	m, b := d.message, d.worker().broker
	lost := &contract.Error{Code: contract.CodeLost, Detail: detail, Executed: contract.ExecutedUnknown}
	switch {
	case m.call != nil && (b.closed || m.call.answered || !m.call.redeliver || len(m.queue.consumers) == 0 || m.losses >= maxLosses):
		m.call.fail(lost)
	case m.call == nil && m.losses >= maxLosses:
		b.deadLetter(d, lost)
	case !b.closed:
		m.event.Redelivered = true
		m.queue.pushFront(m)
	}
}

// release takes d from its worker, and reports whether the worker still had it.
func (d *delivery) release() bool {
	w := d.worker()
	if _, ok := w.deliveries[d]; !ok {
		return false
	}
	delete(w.deliveries, d)
	d.consumer.running--
	d.message.queue.running--
	if d.message.call != nil {
		d.message.call.run = nil
	}
	return true
}
