package memory

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// call is what a request message has beyond an event.
type call struct {
	deadline  time.Time
	redeliver bool        // it runs again if its worker is lost
	run       *delivery   // while it runs
	answer    chan answer // holds one
	answered  bool
}

type answer struct {
	reply contract.Reply
	err   error
}

// reply answers the caller; only the first answer counts. The broker's mutex is held.
func (c *call) reply(r contract.Reply, err *contract.Error) {
	if c.answered {
		return
	}
	c.answered = true
	a := answer{reply: r}
	if err != nil {
		a.err = err
	}
	c.answer <- a
}

// Call runs the request function that answers r's key and returns its reply.
// Every error is an *Error. A call that no worker can take now fails at once
// with ErrUnroutable; it never waits for one to come.
func (b *Broker) Call(ctx context.Context, r contract.Call) (contract.Reply, error) {
	ctx, cancel := untilDeadline(ctx, r)
	defer cancel()
	m, err := b.submit(ctx, r)
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

// untilDeadline bounds ctx by r's deadline, or by DefaultTimeout if neither has one.
func untilDeadline(ctx context.Context, r contract.Call) (context.Context, context.CancelFunc) {
	deadline := r.Deadline
	if _, has := ctx.Deadline(); deadline.IsZero() && has {
		return ctx, func() {}
	}
	if deadline.IsZero() {
		deadline = time.Now().Add(contract.DefaultTimeout)
	}
	return context.WithDeadline(ctx, deadline)
}

// submit queues the call, or says why that is impossible.
func (b *Broker) submit(ctx context.Context, r contract.Call) (*message, error) {
	if ctx.Err() != nil {
		return nil, gaveUp(ctx, contract.ExecutedNo)
	}
	if r.Key != "" || r.Function == "" {
		if err := checkKey(r.Key); err != nil {
			return nil, err
		}
	}
	now := time.Now()
	deadline, _ := ctx.Deadline()
	e := contract.Event{
		ID: cmp.Or(r.ID, contract.NewID()), ContentType: cmp.Or(r.ContentType, "application/json"),
		Time: now, Body: bytes.Clone(r.Body),
		Correlation: r.Correlation, Causation: r.Causation, Trace: r.Trace, Session: bytes.Clone(r.Session),
		Attempt: 1,
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return nil, errClosed()
	}
	q := b.answering(r)
	if q == nil {
		return nil, unroutable(r)
	}
	if q.full() {
		return nil, &contract.Error{
			Code: contract.CodeRefused, Executed: contract.ExecutedNo,
			Detail: fmt.Sprintf("%d calls wait for the function %q", b.cfg.QueueLimit, q.function.Name),
		}
	}
	e.Key = q.function.Keys[0]
	m := b.newMessage(q, e, now)
	m.call = &call{deadline: deadline, redeliver: q.function.Redeliver, answer: make(chan answer, 1)}
	q.push(m)
	return m, nil
}

// answering finds the hosted function that r is for. While a function is being
// renamed, two answer one key: the youngest is preferred.
func (b *Broker) answering(r contract.Call) *queue {
	var found *queue
	var started time.Time
	for _, q := range b.requests {
		if len(q.consumers) == 0 {
			continue
		}
		if r.Key == "" {
			if q.function.Name == r.Function {
				return q
			}
			continue
		}
		youngest := q.consumers[len(q.consumers)-1].worker.announcement.Started
		if q.function.Keys[0] == r.Key && (found == nil || youngest.After(started)) {
			found, started = q, youngest
		}
	}
	return found
}

// abandon gives up on m because ctx is done, cancelling its run if there is one.
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
	return contract.Reply{}, gaveUp(ctx, m.executed())
}

// gaveUp is the error of a caller whose ctx is done.
func gaveUp(ctx context.Context, executed contract.Executed) *contract.Error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return contract.Expired(executed)
	}
	return &contract.Error{Code: contract.CodeCanceled, Detail: "the caller went away", Cause: ctx.Err(), Executed: executed}
}

func unroutable(r contract.Call) *contract.Error {
	detail := fmt.Sprintf("no worker answers the routing key %q at present", r.Key)
	if r.Key == "" {
		detail = fmt.Sprintf("no worker hosts the function %q at present", r.Function)
	}
	return &contract.Error{Code: contract.CodeUnroutable, Detail: detail, Executed: contract.ExecutedNo}
}
