package memory

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/feed"
)

// Publish queues a copy of e for each function that is bound to its key, or for
// none of them if it fails. It fails with ErrUnroutable if there is no such
// function, with ErrRefused if one of their queues is full, with ErrInvalid if
// the key has not 1 to 255 bytes or e is due in more than contract.MaxDelay, and
// with ErrUnavailable if the Broker is closed or ctx is done.
func (b *Broker) Publish(ctx context.Context, e contract.Event) error {
	if err := ctx.Err(); err != nil {
		return &contract.Error{Code: contract.CodeUnavailable, Detail: "nothing was published", Cause: err, Executed: contract.ExecutedNo}
	}
	if err := validateKey(e.Key); err != nil {
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
	if b.closed {
		return errClosed()
	}
	queues, err := b.route(e)
	if err != nil {
		return err
	}
	for tail, pattern := range b.tails {
		if e.Exchange == "" && contract.Match(pattern, e.Key) {
			tail.Offer(e)
		}
	}
	for _, q := range queues {
		m := b.newMessage(q, e, now)
		if e.NotBefore.After(now) {
			q.pushAt(m, e.NotBefore)
		} else {
			q.push(m)
		}
	}
	return nil
}

// route returns the queues that are bound to the key of e, of which there is at
// least one, and none is full. The caller holds b.mu.
func (b *Broker) route(e contract.Event) ([]*queue, error) {
	var queues []*queue
	for _, q := range b.events {
		if q.function.Exchange != e.Exchange || !q.function.Has(e.Key) {
			continue
		}
		if q.full() {
			return nil, &contract.Error{
				Code: contract.CodeRefused, Executed: contract.ExecutedNo,
				Detail: fmt.Sprintf("%d messages wait for the function %q: publish more slowly, or start more workers", b.cfg.QueueLimit, q.function.Name),
			}
		}
		queues = append(queues, q)
	}
	if len(queues) == 0 {
		return nil, &contract.Error{
			Code: contract.CodeUnroutable, Executed: contract.ExecutedNo,
			Detail: fmt.Sprintf("no function reacts to the routing key %q", e.Key),
		}
	}
	return queues, nil
}

// newMessage returns a message that is not queued yet. The caller holds b.mu.
func (b *Broker) newMessage(q *queue, e contract.Event, now time.Time) *message {
	b.last++
	return &message{queue: q, event: e, number: b.last, published: now}
}

// Tail calls fn with a copy of every event that is published with a key that
// matches pattern (see contract.Match) to the exchange of the namespace, until
// ctx is done or the Broker is closed. It misses events if fn is slow: at most
// 256 wait. It returns nil, or ErrUnavailable if the Broker is closed.
func (b *Broker) Tail(ctx context.Context, pattern string, fn func(contract.Event)) error {
	tail := feed.New[contract.Event]()
	b.mu.Lock()
	if b.closed {
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
	tail.Each(ctx, fn)
	return b.Health()
}
