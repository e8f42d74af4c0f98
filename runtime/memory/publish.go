package memory

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Publish queues a copy of e for every function that is bound to its key, or
// for none of them. It fails with ErrUnroutable if there is no such function,
// with ErrRefused if the queue of one is full, and with ErrUnavailable if the
// broker is closed or ctx is done.
func (b *Broker) Publish(ctx context.Context, e contract.Event) error {
	if err := ctx.Err(); err != nil {
		return &contract.Error{Code: contract.CodeUnavailable, Detail: "nothing was published", Cause: err, Executed: contract.ExecutedNo}
	}
	if err := checkKey(e.Key); err != nil {
		return err
	}
	now := time.Now()
	if e.NotBefore.Sub(now) > contract.MaxDelay {
		return &contract.Error{Code: contract.CodeInvalid, Detail: "an event can be published at most 30 days ahead", Executed: contract.ExecutedNo}
	}
	e.ID = cmp.Or(e.ID, contract.NewID())
	e.ContentType = cmp.Or(e.ContentType, "application/json")
	if e.Time.IsZero() {
		e.Time = now
	}
	e.Body, e.Headers = bytes.Clone(e.Body), maps.Clone(e.Headers)
	e.Attempt, e.Redelivered = 1, false

	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return errClosed()
	}
	var targets []*queue
	for _, q := range b.events {
		if q.function.Exchange != e.Exchange || !q.function.Has(e.Key) {
			continue
		}
		if q.full() {
			return &contract.Error{
				Code: contract.CodeRefused, Executed: contract.ExecutedNo,
				Detail: fmt.Sprintf("%d messages wait for the function %q: publish more slowly, or start more workers", b.cfg.QueueLimit, q.function.Name),
			}
		}
		targets = append(targets, q)
	}
	if len(targets) == 0 {
		return &contract.Error{
			Code: contract.CodeUnroutable, Executed: contract.ExecutedNo,
			Detail: fmt.Sprintf("no function reacts to the routing key %q", e.Key),
		}
	}
	for tail, pattern := range b.tails {
		if e.Exchange == "" && contract.Match(pattern, e.Key) {
			tail.offer(e)
		}
	}
	for _, q := range targets {
		m := b.newMessage(q, e, now)
		if e.NotBefore.After(now) {
			q.pushAt(m, e.NotBefore)
		} else {
			q.push(m)
		}
	}
	return nil
}

func (b *Broker) newMessage(q *queue, e contract.Event, now time.Time) *message {
	b.last++
	return &message{queue: q, event: e, sequence: b.last, first: now}
}

// Tail calls fn with a copy of every event of the namespace's own exchange
// that is published under pattern, until ctx is done. It misses events while
// fn is slow.
func (b *Broker) Tail(ctx context.Context, pattern string, fn func(contract.Event)) error {
	tail := newFeed[contract.Event]()
	b.mu.Lock()
	if b.stopped {
		b.mu.Unlock()
		return errClosed()
	}
	b.tails[tail] = pattern
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.tails, tail)
	}()
	tail.each(ctx, fn)
	return b.Health()
}
