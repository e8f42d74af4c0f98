package responder

import (
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// run runs one call and sends its reply.
func (r *Responder) run(j *job) {
	d, c := j.d, j.call
	var deadline time.Time
	if c.Deadline != 0 {
		deadline = time.UnixMilli(c.Deadline)
		if !time.Now().Before(deadline) {
			r.answerExpired(j)
			return
		}
	}
	if ok, again := d.begin(r.base, r.cfg.Process); !ok {
		if again {
			r.answered()
		} else {
			r.reply(d, c, contract.Reply{}, wire.ErrLost, 0)
		}
		return
	}
	if c.Deadline != 0 && !time.Now().Before(deadline) { // begin has waited
		r.answerExpired(j)
		return
	}
	attempt := 1
	if d.redelivered {
		attempt = 2
	}
	began := time.Now()
	run := r.fn.Begin(r.base, &contract.Event{
		Key: d.key, ID: c.ID, ContentType: wire.ContentTypeOr(c.ContentType), Body: c.Body,
		Correlation: c.Correlation, Causation: c.Causation, Trace: c.Trace, Session: c.Session,
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
			r.reply(d, c, contract.Reply{}, wire.ErrLost, took)
		} else {
			r.answered() // the broker delivers it again
		}
		return
	}
	failed := contract.AsError(err)
	if failed != nil && failed.Code == contract.CodeExpired && j.canceled.Load() {
		failed = wire.Canceled(contract.ExecutedUnknown) // the caller has canceled it; its deadline has not passed
	}
	i := contract.Invocation{
		Function: r.fn.Name, Kind: contract.KindRequest, Key: d.key, ID: c.ID, Trace: c.Trace, Attempt: attempt,
		Wait: began.Sub(d.arrived), Run: took, Outcome: contract.OutcomeDone,
	}
	if failed != nil {
		i.Outcome, i.Err = contract.OutcomeFailed, failed
	}
	r.reply(d, c, done, failed, took)
	r.cfg.Observe(i)
}

// answerExpired answers a call that expired before it was started here. If it is
// delivered again, it may have been started elsewhere.
func (r *Responder) answerExpired(j *job) {
	executed := contract.ExecutedNo
	if j.d.redelivered {
		executed = contract.ExecutedUnknown
	}
	r.reply(j.d, j.call, contract.Reply{}, contract.Expired(executed), 0)
}

// cancelCall handles a cancel broadcast: it cancels the run of the call, or
// prevents it from starting.
func (r *Responder) cancelCall(body []byte) {
	replyTo, tag, ok := wire.ParseCancel(body)
	if !ok {
		return
	}
	fits := func(j *job) bool { return j.call.Tag == tag && j.d.replyTo == replyTo }
	for _, j := range r.pool.remove(fits) {
		r.drop(j)
	}
	for _, j := range r.pool.runs() {
		if fits(j) {
			j.cancel()
		}
	}
}

// onConnectionLost handles the end of the channel of s. The broker delivers again
// what was not acknowledged. The replies that were sent last may be lost although
// their calls were acknowledged: their callers are told so. Those that have
// received the reply ignore this.
func (r *Responder) onConnectionLost(s *session) {
	s.acks.Close()
	for _, j := range r.pool.runs() {
		if j.d.session == s && j.d.lose() {
			j.cancel()
		}
	}
	lost := s.lastSent()
	r.mu.Lock()
	if r.closed {
		lost = nil // sendReplies may have ended
	}
	r.unanswered += len(lost)
	r.mu.Unlock()
	for _, sent := range lost {
		d := &delivery{session: s, replyTo: sent.replyTo, frames: sent.frames, settle: beforeRun, acked: true, left: 1, running: 1}
		r.reply(d, &wire.Call{Tag: sent.tag}, contract.Reply{}, errReplyLost, 0)
	}
}

// errReplyLost is the outcome of a call whose reply may not have reached the
// broker.
var errReplyLost = &contract.Error{
	Code: contract.CodeLost, Executed: contract.ExecutedUnknown,
	Detail: "the worker lost its connection to the message broker while it answered; the call may have run and is not run again",
}

// drop settles a call that was canceled before it started.
func (r *Responder) drop(j *job) {
	j.d.sent()
	r.answered()
}

// start allows j to be canceled by canceling its run. It returns false if j was
// canceled before.
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
