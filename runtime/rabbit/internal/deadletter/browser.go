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

const (
	FirstWindow   = 100      // messages
	windowBudget  = 32 << 20 // bytes of a window, about
	maxBrowseTime = 5 * time.Minute
	maxRemovals   = FirstWindow // at once

	// The broker puts back what a channel held in the order of its consumers,
	// as long as they are no more than 32.
	WindowsPerChannel = 16

	stallCheck  = time.Second     // without a message, before the broker is asked for more
	idleTimeout = 5 * time.Second // for somebody else to end a look
	idlePoll    = 20 * time.Millisecond
)

// browser looks at the messages of a quorum queue without taking them out of
// it, but for those that it is told to. AMQP knows no such thing: it consumes,
// and acknowledges nothing. Closing the channel puts all back in its place,
// which a nack does not on 3.10.
//
// The broker would deliver at once again what goes back, so all is held until
// the end. And it closes the channel of who holds a message for longer than
// its consumer_timeout (30 min), so the browser ends and begins anew meanwhile.
type browser struct {
	link  *connection.Connection
	queue string
	each  func(ctx context.Context, d *amqp.Delivery) (Disposition, error) // called by one goroutine

	Window, Budget int // of the first hand; for tests
}

// Disposition is what is to be done with a message: by default it goes back.
type Disposition struct {
	Remove func() error // acknowledges it, while others are looked at; once it returns nil the message is gone
	Stop   bool         // the rest goes back, too
}

func NewBrowser(l *connection.Connection, queue string, each func(context.Context, *amqp.Delivery) (Disposition, error)) *browser {
	return &browser{link: l, queue: queue, each: each, Window: FirstWindow, Budget: windowBudget}
}

// Run shows each of the messages that there are when it begins, the oldest
// first. It fails with contract.ErrNotFound if there is no such queue, with
// contract.ErrConflict if somebody else consumes from it, and with the first error
// of each or of a removal. It returns when no removal is under way any more.
func (w *browser) Run(ctx context.Context) error {
	for left := math.MaxInt; ; {
		q, err := awaitIdle(ctx, w.link, w.queue)
		if err != nil {
			return err
		}
		left = min(left, q.Messages)
		if left == 0 {
			return nil
		}
		s := w.link.Await(ctx)
		if s == nil {
			return context.Cause(ctx)
		}
		gone, again, err := w.browseOnce(ctx, s.AMQP, left)
		if err != nil || !again {
			return err
		}
		left -= gone
	}
}

// browseOnce shows up to n messages. It reports how many were removed, and whether
// it is to be called again: it has stayed for long enough, or somebody else has
// come at the same moment.
func (w *browser) browseOnce(ctx context.Context, conn *amqp.Connection, n int) (gone int, again bool, err error) {
	h := &consumerSet{conn: conn, queue: w.queue, size: w.Window, budget: w.Budget}
	defer h.release()
	others, err := h.open()
	if err != nil {
		return 0, false, err
	}
	if others > 0 {
		h.release()
		var pause connection.Backoff // a random one: the two do not meet for ever
		return 0, pause.Wait(ctx), context.Cause(ctx)
	}
	removals, unbroken := errgroup.WithContext(ctx)
	removals.SetLimit(maxRemovals)
	var removed atomic.Int64
	again, err = w.show(unbroken, h, n, func(remove func() error) {
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

// show shows the messages that h takes, and has those removed that are to be.
func (w *browser) show(ctx context.Context, h *consumerSet, n int, remove func(by func() error)) (again bool, err error) {
	leave := time.After(maxBrowseTime)
	for seen := 1; seen <= n; seen++ {
		select {
		case <-leave:
			return true, nil
		default:
		}
		d, err := h.next(ctx)
		if err != nil || d == nil {
			return false, err
		}
		todo, err := w.each(ctx, d)
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

// awaitIdle asks how a queue is doing once nobody else has messages of the queue in
// hand, which it waits for. It fails with contract.ErrConflict if that does not end.
func awaitIdle(ctx context.Context, l *connection.Connection, queue string) (amqp.Queue, error) {
	again := time.NewTicker(idlePoll)
	defer again.Stop()
	for deadline := time.Now().Add(idleTimeout); ; {
		q, err := l.InspectQueue(ctx, queue)
		if err != nil || q.Consumers == 0 {
			return q, err
		}
		if time.Now().After(deadline) {
			return q, &contract.Error{
				Code: contract.CodeConflict, Executed: contract.ExecutedNo,
				Detail: fmt.Sprintf("somebody else has the messages of queue %q in hand (consumers: %d): wait until that has ended", queue, q.Consumers),
			}
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return q, context.Cause(ctx)
		}
	}
}
