package rabbit

import (
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// shortRun is how long a run takes at the most that a second processor could not
// have helped with.
const shortRun = time.Millisecond

// run runs one call and puts its reply in the outbox.
func (r *responder) run(j *job) {
	d, c := j.d, j.call
	var deadline time.Time
	if c.deadline != 0 {
		deadline = time.UnixMilli(c.deadline)
		if !time.Now().Before(deadline) {
			r.answerExpired(j)
			return
		}
	}
	if !d.begin() {
		r.answered() // the broker still has it, and delivers it again
		return
	}
	attempt := 1
	if d.redelivered {
		attempt = 2
	}
	began := time.Now()
	run := r.fn.Begin(r.base, &contract.Event{
		Key: d.key, ID: c.id, ContentType: contentTypeOr(c.contentType), Body: c.body,
		Correlation: c.correlation, Causation: c.causation, Trace: c.trace, Session: c.session,
		Attempt: attempt, Redelivered: d.redelivered,
	}, deadline)
	if !j.start(run) {
		r.drop(j)
		return
	}
	r.b.cfg.Solo.Busy(1)
	done, err := run.Do()
	r.b.cfg.Solo.Busy(-1)
	took := time.Since(began)
	r.b.ran(took)

	if r.base.Err() != nil && err != nil {
		r.answered() // the grace period is over: the broker has it still, or its caller is left to wonder
		return
	}
	failed := contract.AsError(err)
	if failed != nil && failed.Code == contract.CodeExpired && j.canceled.Load() {
		failed = canceled(contract.ExecutedUnknown) // it was its caller who ended it, not its deadline
	}
	i := contract.Invocation{
		Function: r.fn.Name, Kind: contract.KindRequest, Key: d.key, ID: c.id, Trace: c.trace, Attempt: attempt,
		Wait: began.Sub(d.arrived), Run: took, Outcome: contract.OutcomeDone,
	}
	if failed != nil {
		i.Outcome, i.Err = contract.OutcomeFailed, failed
	}
	r.reply(d, c, done, failed, took)
	r.b.cfg.Observe(i)
}

// ran notes a run that took so long: whether it was the only one, and short.
func (b *Broker) ran(took time.Duration) {
	if took <= shortRun && b.load.Load() == 1 {
		b.cfg.Solo.Alone()
	} else {
		b.cfg.Solo.Crowded()
	}
}

// answerExpired answers a call that was never started.
func (r *responder) answerExpired(j *job) {
	r.reply(j.d, j.call, contract.Reply{}, contract.Expired(contract.ExecutedNo), 0)
}

// hearCancel takes a cancel broadcast in: it ends the call's run, or keeps it
// from starting.
func (r *responder) hearCancel(body []byte) {
	replyTo, tag, ok := parseCancel(body)
	if !ok {
		return
	}
	fits := func(j *job) bool { return j.call.tag == tag && j.d.replyTo == replyTo }
	for _, j := range r.pool.takeBack(fits) {
		r.drop(j)
	}
	for _, j := range r.pool.running() {
		if fits(j) {
			j.cancel()
		}
	}
}

// drop settles a call that was not started and whose caller has gone.
func (r *responder) drop(j *job) {
	j.d.sent()
	r.answered()
}

// start lets j be canceled by ending its run; false if it was canceled before.
func (j *job) start(run *contract.Run) bool {
	j.run.Store(run)
	return !j.canceled.Load()
}

func (j *job) cancel() {
	j.canceled.Store(true)
	if run := j.run.Load(); run != nil {
		run.Cancel()
	}
}
