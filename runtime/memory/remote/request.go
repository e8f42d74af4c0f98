package remote

import (
	"context"
	"fmt"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/deadline"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/feed"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/wire"
)

// Publish does the same as memory.Broker.Publish. ErrUnconfirmed says that ctx
// was done, or the connection lost, before the answer arrived.
func (b *Broker) Publish(ctx context.Context, e contract.Event) error {
	if err := ctx.Err(); err != nil {
		return &contract.Error{Code: contract.CodeUnavailable, Detail: "nothing was published", Cause: err, Executed: contract.ExecutedNo}
	}
	_, err := b.request(ctx, &wire.Frame{Kind: wire.Publish, Event: wire.Encodable(e)})
	return err
}

// Broadcast does the same as memory.Broker.Broadcast.
func (b *Broker) Broadcast(ctx context.Context, topic string, body []byte) error {
	_, err := b.request(ctx, &wire.Frame{Kind: wire.Broadcast, Topic: topic, Body: body})
	return err
}

// Listen does the same as memory.Broker.Listen.
func (b *Broker) Listen(topic string, fn func(body []byte)) (stop func()) {
	return b.listeners.Listen(topic, fn)
}

// cancelTimeout is how long a Call whose ctx is done waits for the broker to say
// whether the function had started.
const cancelTimeout = time.Second

// Call does the same as memory.Broker.Call. After ctx is done it may take up to
// 1 s more.
func (b *Broker) Call(ctx context.Context, c contract.Call) (contract.Reply, error) {
	ctx, stop := deadline.Context(ctx, c)
	defer stop()
	if ctx.Err() != nil {
		return contract.Reply{}, deadline.Error(ctx, contract.ExecutedNo)
	}
	c.Deadline, _ = ctx.Deadline()
	id := b.newID()
	answer, forget := b.expectAnswer(id)
	defer forget()
	if b.Health() != nil {
		return contract.Reply{}, b.unavailable()
	}
	b.conn.Send(&wire.Frame{Kind: wire.Call, ID: id, Request: &c})
	select {
	case f := <-answer:
		return replyOf(f)
	case <-b.lost:
		return contract.Reply{}, b.unconfirmed(b.cause)
	case <-ctx.Done():
	}
	b.conn.Send(&wire.Frame{Kind: wire.CancelCall, ID: id})
	timer := time.NewTimer(cancelTimeout)
	defer timer.Stop()
	executed := contract.ExecutedUnknown
	select {
	case f := <-answer:
		if f.Failure == nil || f.Failure.Code != contract.CodeCanceled {
			return replyOf(f)
		}
		executed = f.Failure.Executed
	case <-b.lost:
	case <-timer.C:
	}
	return contract.Reply{}, deadline.Error(ctx, executed)
}

func replyOf(f *wire.Frame) (contract.Reply, error) {
	if f.Failure != nil || f.Reply == nil {
		return contract.Reply{}, f.Failure.Err()
	}
	return *f.Reply, nil
}

// Tail does the same as memory.Broker.Tail.
func (b *Broker) Tail(ctx context.Context, pattern string, fn func(contract.Event)) error {
	events := feed.New[contract.Event]()
	id := b.newID()
	b.mu.Lock()
	b.tails[id] = events
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.tails, id)
	}()
	// Checked after the tail is registered: a connection that is lost from now on
	// stops it.
	if err := b.Health(); err != nil {
		return err
	}
	b.conn.Send(&wire.Frame{Kind: wire.StartTail, ID: id, Topic: pattern})
	events.Each(ctx, fn)
	b.conn.Send(&wire.Frame{Kind: wire.StopTail, ID: id})
	return b.Health()
}

// request sends f, with a new ID if it has none, and waits for the answer.
func (b *Broker) request(ctx context.Context, f *wire.Frame) (*wire.Frame, error) {
	if f.ID == 0 {
		f.ID = b.newID()
	}
	answer, forget := b.expectAnswer(f.ID)
	defer forget()
	// Checked after the request is registered: a connection that is lost from now on
	// ends the wait.
	if b.Health() != nil {
		return nil, b.unavailable()
	}
	b.conn.Send(f)
	select {
	case a := <-answer:
		return a, a.Failure.Err()
	case <-b.lost:
		return nil, b.unconfirmed(b.cause)
	case <-ctx.Done():
		return nil, b.unconfirmed(ctx.Err())
	}
}

func (b *Broker) newID() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lastID++
	return b.lastID
}

// expectAnswer returns a channel for the answer to the request with this ID. The
// caller must call forget when it no longer waits.
func (b *Broker) expectAnswer(id uint64) (answer <-chan *wire.Frame, forget func()) {
	ch := make(chan *wire.Frame, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers[id] = ch
	return ch, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.answers, id)
	}
}

func (b *Broker) unconfirmed(cause error) *contract.Error {
	return &contract.Error{
		Code: contract.CodeUnconfirmed, Executed: contract.ExecutedUnknown, Cause: cause,
		Detail: fmt.Sprintf("sent to the broker shared at %s, but its answer is missing", b.path),
	}
}
