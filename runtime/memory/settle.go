package memory

import (
	"cmp"
	"slices"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// maxLosses is how many workers may die under one event before it is taken for
// what kills them, as the delivery limit of a quorum queue does.
const maxLosses = 20

// settle gives a run's result its effect: an answer, a retry, a dead letter.
// Only the first one counts: the broker may have taken the message away from
// its worker before.
func (b *Broker) settle(d *delivery, r result) contract.Decision {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !d.release() {
		return contract.Decision{Outcome: contract.OutcomeRetry}
	}
	m, q := d.message, d.message.queue
	defer q.dispatch()
	switch {
	case r.returned:
		b.giveBack(d, &contract.Error{Code: contract.CodeLost, Detail: "the worker stopped while the function ran", Executed: contract.ExecutedUnknown})
		return contract.Decision{Outcome: contract.OutcomeRetry}
	case m.call != nil && r.err != nil:
		err := forCaller(r.err)
		m.call.reply(contract.Reply{}, err)
		return contract.Decision{Outcome: contract.OutcomeFailed, Err: err}
	case m.call != nil:
		reply := r.reply
		reply.Run, reply.Worker = r.run, d.worker().announcement.Worker
		m.call.reply(reply, nil)
		return contract.Decision{Outcome: contract.OutcomeDone}
	}
	v := d.consumer.function.Retry.Decide(r.err, d.event.Attempt)
	switch v.Outcome {
	case contract.OutcomeRetry:
		m.event.Attempt = v.Attempt
		m.event.Redelivered = false
		if q.function.Ordered {
			q.hold(m, v.After)
		} else {
			q.pushAt(m, time.Now().Add(v.After))
		}
	case contract.OutcomeDead:
		b.bury(d, v.Err)
	}
	return v
}

// lose takes away everything that w still has: its process died, or its grace
// period is over.
func (b *Broker) lose(w *worker) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leaveLocked(w)
	var runs []*delivery
	for d := range w.runs {
		runs = append(runs, d)
	}
	slices.SortFunc(runs, func(x, y *delivery) int { return cmp.Compare(y.message.sequence, x.message.sequence) })
	for _, d := range runs { // the youngest first, as each goes to the front
		d.release()
		d.message.losses++
		b.giveBack(d, &contract.Error{Code: contract.CodeLost, Detail: "the worker died while the function ran", Executed: contract.ExecutedUnknown})
	}
	for _, d := range runs {
		d.message.queue.dispatch()
	}
}

// giveBack puts the message of a run that was cut short back to the front of
// its queue without burning an attempt. A call that must not run twice, or
// that nobody else can take, is answered with err instead.
func (b *Broker) giveBack(d *delivery, err *contract.Error) {
	m := d.message
	switch {
	case m.call != nil && (m.call.answered || !m.call.redeliver || len(m.queue.consumers) == 0):
		m.call.reply(contract.Reply{}, err)
	case m.losses >= maxLosses && m.call == nil:
		b.bury(d, err)
	case m.losses >= maxLosses:
		m.call.reply(contract.Reply{}, err)
	case !b.stopped:
		m.event.Redelivered = true
		m.queue.pushFront(m)
	}
}

// release takes d out of its worker's hands and reports whether it was there.
func (d *delivery) release() bool {
	if _, held := d.worker().runs[d]; !held {
		return false
	}
	delete(d.worker().runs, d)
	d.consumer.running--
	d.message.queue.running--
	if d.message.call != nil {
		d.message.call.run = nil
	}
	return true
}

func (d *delivery) worker() *worker { return d.consumer.worker }

// forCaller is what of a function's error travels: the cause and the stack of
// a panic stay with the worker, here as over RabbitMQ.
func forCaller(err error) *contract.Error {
	e := contract.AsError(err)
	return &contract.Error{
		Code: e.Code, Detail: e.Detail, Fields: e.Fields, After: e.After,
		Executed: cmp.Or(e.Executed, contract.ExecutedYes),
	}
}
