package rabbit

import (
	"context"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// run runs one call and puts its reply in the outbox.
func (r *responder) run(j *job) {
	d, c := j.d, &j.call
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
	ctx, cancel := context.WithCancel(r.base)
	defer cancel()
	key := callKey{d.replyTo, c.tag}
	r.cancel.add(key, cancel)

	attempt := 1
	if d.redelivered {
		attempt = 2
	}
	began := time.Now()
	done, err := r.fn.Run(ctx, &faas.Event{
		Key: d.key, ID: c.id, ContentType: contentTypeOr(c.contentType), Body: c.body,
		Correlation: c.correlation, Causation: c.causation, Trace: c.trace, Session: c.session,
		Attempt: attempt, Redelivered: d.redelivered,
	}, deadline)
	took := time.Since(began)
	r.cancel.remove(key)

	if r.base.Err() != nil && err != nil {
		r.answered() // the grace period is over: the broker has it still, or its caller is left to wonder
		return
	}
	failed := faas.AsError(err)
	if failed != nil && failed.Code == faas.CodeExpired && ctx.Err() != nil {
		failed = canceled(faas.ExecutedUnknown) // it was its caller who ended it, not its deadline
	}
	i := faas.Invocation{
		Function: r.fn.Name, Kind: faas.KindRequest, Key: d.key, ID: c.id, Trace: c.trace, Attempt: attempt,
		Wait: began.Sub(d.arrived), Run: took, Outcome: faas.Done,
	}
	if failed != nil {
		i.Outcome, i.Err = faas.Failed, failed
	}
	r.reply(d, c, done, failed, took)
	r.b.cfg.Observe(i)
}

// answerExpired answers a call that was never started.
func (r *responder) answerExpired(j *job) {
	r.reply(j.d, &j.call, faas.Reply{}, faas.Expired(faas.ExecutedNo), 0)
}

// callKey names a call that runs here.
type callKey struct{ replyTo, tag string }

// cancels ends runs that nobody waits for any more.
type cancels struct {
	mu      sync.Mutex
	running map[callKey]context.CancelFunc
}

func (c *cancels) add(key callKey, cancel context.CancelFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		c.running = map[callKey]context.CancelFunc{}
	}
	c.running[key] = cancel
}

func (c *cancels) remove(key callKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.running, key)
}

// hear takes a cancel broadcast in.
func (c *cancels) hear(body []byte) {
	replyTo, tag, ok := parseCancel(body)
	if !ok {
		return
	}
	c.mu.Lock()
	cancel := c.running[callKey{replyTo, tag}]
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}
