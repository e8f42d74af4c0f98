package rabbit

import (
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

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
	if !d.begin(r.b.cfg.Process) {
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
	done, err := run.Do()
	took := time.Since(began)

	if r.base.Err() != nil && err != nil { // the grace period is over
		if d.settle == beforeRun {
			r.reply(d, c, contract.Reply{}, errLost, took)
		} else {
			r.answered() // the broker delivers it again
		}
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

// answerExpired answers a call that was not started here. Of one that is
// delivered again nothing is known.
func (r *responder) answerExpired(j *job) {
	executed := contract.ExecutedNo
	if j.d.redelivered {
		executed = contract.ExecutedUnknown
	}
	r.reply(j.d, j.call, contract.Reply{}, contract.Expired(executed), 0)
}

// hearCancel takes a cancel broadcast in: it ends the call's run, or keeps it
// from starting.
func (r *responder) hearCancel(body []byte) {
	replyTo, tag, ok := parseCancel(body)
	if !ok {
		return
	}
	fits := func(j *job) bool { return j.call.tag == tag && j.d.replyTo == replyTo }
	for _, j := range r.pool.remove(fits) {
		r.drop(j)
	}
	for _, j := range r.pool.runs() {
		if fits(j) {
			j.cancel()
		}
	}
}

// lose ends what was under way over s, whose channel is gone. The broker
// delivers again what was not acknowledged. The replies that were sent last may
// have been lost behind their acknowledgements; callers that got one of them
// ignore what they are told here.
func (r *responder) lose(s *workSession) {
	s.acks.close()
	for _, j := range r.pool.runs() {
		if j.d.session == s && j.d.lose() {
			j.cancel()
		}
	}
	lost := s.lastSent()
	r.mu.Lock()
	if r.closed {
		lost = nil // nothing sends them any more
	}
	r.load += len(lost)
	r.mu.Unlock()
	for _, sent := range lost {
		d := &delivery{session: s, replyTo: sent.replyTo, frames: sent.frames, settle: beforeRun, acked: true, left: 1}
		r.reply(d, &wireCall{tag: sent.tag}, contract.Reply{}, errReplyLost, 0)
	}
}

// errReplyLost is the outcome of a call whose reply may not have reached the broker.
var errReplyLost = &contract.Error{
	Code: contract.CodeLost, Executed: contract.ExecutedUnknown,
	Detail: "the worker lost its connection to the message broker while it answered; the call may have run and is not run again",
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
