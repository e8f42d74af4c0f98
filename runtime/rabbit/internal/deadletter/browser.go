package deadletter

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
)

// FirstWindow is the number of messages in the first window of a browser.
const FirstWindow = 100

// WindowsPerChannel is the number of consumers that a channel gets. The broker
// requeues the messages of a channel in the order of its consumers, as long as the
// channel has at most 32.
const WindowsPerChannel = 16

const (
	windowBudget  = 32 << 20    // bytes of a window, approximately
	maxRemovals   = FirstWindow // that run concurrently
	maxBrowseTime = 5 * time.Minute
	stallCheck    = time.Second     // without a message, before the broker is asked whether there are more
	idleTimeout   = 5 * time.Second // for another browser to end
	idlePoll      = 20 * time.Millisecond
)

// Browser reads the messages of a quorum queue and removes only those that it is
// told to remove. AMQP has no such operation: a Browser consumes without
// acknowledging. Closing the channel requeues the messages in their places; with
// RabbitMQ 3.10, a nack does not.
//
// The broker would deliver requeued messages again at once, so that all are held
// until the end. It closes a channel that holds a message longer than
// consumer_timeout (30 minutes), so that a long browse is split.
type Browser struct {
	conn  *connection.Connection
	queue string
	each  func(ctx context.Context, d *amqp.Delivery) (Disposition, error)

	Window, Budget int // messages and bytes of the first window
}

// Disposition is what happens to a message. By default it is requeued.
type Disposition struct {
	Remove func() error // removes the message, concurrently with later calls of each
	Stop   bool         // ends the browse; the other messages are requeued
}

// NewBrowser returns a Browser of the queue that calls each with its messages, from one
// goroutine.
func NewBrowser(c *connection.Connection, queue string, each func(context.Context, *amqp.Delivery) (Disposition, error)) *Browser {
	return &Browser{conn: c, queue: queue, each: each, Window: FirstWindow, Budget: windowBudget}
}

// Run calls each with the messages that exist when it begins, oldest first. It
// fails with contract.ErrNotFound if there is no such queue, with
// contract.ErrConflict if another client consumes from it, and with the first error
// of each or of a removal. It returns after all removals have ended.
func (b *Browser) Run(ctx context.Context) error {
	for left := math.MaxInt; ; {
		q, err := awaitIdle(ctx, b.conn, b.queue)
		if err != nil {
			return err
		}
		left = min(left, q.Messages)
		if left == 0 {
			return nil
		}
		s := b.conn.Await(ctx)
		if s == nil {
			return context.Cause(ctx)
		}
		gone, again, err := b.browseOnce(ctx, s.AMQP, left)
		if err != nil || !again {
			return err
		}
		left -= gone
	}
}

// browseOnce handles up to n messages. It returns how many were removed, and
// whether it must be called again: maxBrowseTime has passed, or another browser has
// begun at the same moment.
func (b *Browser) browseOnce(ctx context.Context, conn *amqp.Connection, n int) (gone int, again bool, err error) {
	h := &consumerSet{conn: conn, queue: b.queue, size: b.Window, budget: b.Budget}
	defer h.release()
	others, err := h.open()
	if err != nil {
		return 0, false, err
	}
	if others > 0 {
		h.release()
		var pause connection.Backoff // it is random, so that two browsers do not conflict forever
		return 0, pause.Wait(ctx), context.Cause(ctx)
	}
	removals, unbroken := errgroup.WithContext(ctx)
	removals.SetLimit(maxRemovals)
	var removed atomic.Int64
	again, err = b.show(unbroken, h, n, func(remove func() error) {
		removals.Go(func() error {
			err := remove()
			if err == nil {
				removed.Add(1)
			}
			return err
		})
	})
	err = cmp.Or(removals.Wait(), err)
	if removed.Load() > 0 {
		err = cmp.Or(err, h.settle())
	}
	return int(removed.Load()), again && err == nil, err
}

// show calls each for the messages that h receives, and remove with those that are
// to be removed.
func (b *Browser) show(ctx context.Context, h *consumerSet, n int, remove func(by func() error)) (again bool, err error) {
	end := time.After(maxBrowseTime)
	for seen := 1; seen <= n; seen++ {
		select {
		case <-end:
			return true, nil
		default:
		}
		d, err := h.next(ctx)
		if err != nil || d == nil {
			return false, err
		}
		todo, err := b.each(ctx, d)
		switch {
		case err != nil || todo.Stop:
			return false, err
		case todo.Remove != nil:
			remove(todo.Remove)
		case seen < n:
			if err := h.keep(len(d.Body)); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// awaitIdle returns the state of the queue once no other client consumes from it.
// It fails with contract.ErrConflict after idleTimeout.
func awaitIdle(ctx context.Context, c *connection.Connection, queue string) (amqp.Queue, error) {
	again := time.NewTicker(idlePoll)
	defer again.Stop()
	for deadline := time.Now().Add(idleTimeout); ; {
		q, err := c.InspectQueue(ctx, queue)
		if err != nil || q.Consumers == 0 {
			return q, err
		}
		if time.Now().After(deadline) {
			return q, &contract.Error{
				Code: contract.CodeConflict, Executed: contract.ExecutedNo,
				Detail: fmt.Sprintf("another client consumes the messages of queue %q (consumers: %d): wait until it has ended", queue, q.Consumers),
			}
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return q, context.Cause(ctx)
		}
	}
}
