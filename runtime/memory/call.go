package memory

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/deadline"
)

// Call runs the request function for the key of c and returns its reply. A call
// without a deadline has contract.DefaultTimeout. Every error is an
// *contract.Error. Call fails at once with ErrUnroutable if no worker hosts the
// function, and with ErrRefused if its queue is full.
func (b *Broker) Call(ctx context.Context, c contract.Call) (contract.Reply, error) {
	ctx, stop := deadline.Context(ctx, c)
	defer stop()
	m, err := b.enqueueCall(ctx, c)
	if err != nil {
		return contract.Reply{}, err
	}
	select {
	case a := <-m.call.answer:
		return a.reply, a.err
	case <-ctx.Done():
		return b.abandon(ctx, m)
	}
}

// enqueueCall queues c, whose deadline is that of ctx.
func (b *Broker) enqueueCall(ctx context.Context, c contract.Call) (*message, error) {
	if ctx.Err() != nil {
		return nil, deadline.Error(ctx, contract.ExecutedNo)
	}
	if c.Key != "" || c.Function == "" {
		if err := validateKey(c.Key); err != nil {
			return nil, err
		}
	}
	now := time.Now()
	until, _ := ctx.Deadline()
	e := contract.Event{
		ID: cmp.Or(c.ID, contract.NewID()), ContentType: cmp.Or(c.ContentType, "application/json"),
		Time: now, Body: bytes.Clone(c.Body),
		Correlation: c.Correlation, Causation: c.Causation, Trace: c.Trace, Session: bytes.Clone(c.Session),
		Attempt: 1,
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosed()
	}
	q := b.routeCall(c)
	if q == nil {
		return nil, unroutable(c)
	}
	if q.full() {
		return nil, &contract.Error{
			Code: contract.CodeRefused, Executed: contract.ExecutedNo,
			Detail: fmt.Sprintf("%d calls wait for the function %q", b.cfg.QueueLimit, q.function.Name),
		}
	}
	e.Key = q.function.Keys[0]
	m := b.newMessage(q, e, now)
	m.call = &call{deadline: until, redeliver: q.function.Redeliver, answer: make(chan answer, 1)}
	q.push(m)
	return m, nil
}

// routeCall returns the queue of the function that c calls, or nil if no worker
// hosts it. While a function is being renamed, two functions have the same key:
// then it returns the one whose newest worker started last. The caller holds b.mu.
func (b *Broker) routeCall(c contract.Call) *queue {
	var found *queue
	var started time.Time
	for _, q := range b.requests {
		if len(q.consumers) == 0 {
			continue
		}
		if c.Key == "" {
			if q.function.Name == c.Function {
				return q
			}
			continue
		}
		newest := q.consumers[len(q.consumers)-1].worker.announcement.Started
		if q.function.Keys[0] == c.Key && (found == nil || newest.After(started)) {
			found, started = q, newest
		}
	}
	return found
}

// abandon ends the wait for m, because ctx is done. It cancels the run of m if
// there is one.
func (b *Broker) abandon(ctx context.Context, m *message) (contract.Reply, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.call.answered {
		a := <-m.call.answer
		return a.reply, a.err
	}
	m.call.answered = true
	switch {
	case m.queued:
		m.queue.remove(m)
	case m.call.run != nil:
		m.call.run.cancel()
	}
	return contract.Reply{}, deadline.Error(ctx, m.executed())
}

func unroutable(c contract.Call) *contract.Error {
	detail := fmt.Sprintf("no worker answers the routing key %q at present", c.Key)
	if c.Key == "" {
		detail = fmt.Sprintf("no worker hosts the function %q at present", c.Function)
	}
	return &contract.Error{Code: contract.CodeUnroutable, Detail: detail, Executed: contract.ExecutedNo}
}

// A call is what the message of a call has in addition to an event. The mutex of
// the Broker protects it.
type call struct {
	deadline  time.Time
	redeliver bool        // it may run again if its worker is lost
	run       *delivery   // nil unless it runs
	answer    chan answer // has a buffer of one
	answered  bool
}

type answer struct {
	reply contract.Reply
	err   error
}

// succeed answers the caller with r, and fail with err. Only the first answer
// counts.
func (c *call) succeed(r contract.Reply) { c.finish(answer{reply: r}) }

func (c *call) fail(err *contract.Error) { c.finish(answer{err: err}) }

func (c *call) finish(a answer) {
	if !c.answered {
		c.answered = true
		c.answer <- a
	}
}
