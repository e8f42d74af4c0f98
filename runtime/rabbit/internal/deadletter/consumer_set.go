package deadletter

import (
	"context"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
)

// consumerSet holds messages of a queue: what was taken and not acknowledged.
//
// A consumer is given as much as fits its window. What is kept fills the
// window; then the next consumer gets the next, larger one. So any number of
// messages can be held, and few of them wait in memory.
type consumerSet struct {
	conn   *amqp.Connection
	queue  string
	size   int // of the window
	budget int // bytes that a window should not exceed by far

	channels   []*amqp.Channel // the last one is in use
	held       []int           // messages that each of them keeps
	consumers  int             // of the channel in use
	tag        string
	deliveries <-chan amqp.Delivery
	closed     <-chan *amqp.Error
	kept       int // messages of the window that are kept
	bytes      int // theirs
}

// open begins to take messages and reports how many others do.
func (h *consumerSet) open() (others int, err error) {
	if err := h.grow(); err != nil {
		return 0, err
	}
	q, err := h.channel().QueueDeclarePassive(h.queue, true, false, false, false, nil)
	if err != nil {
		return 0, fmt.Errorf("look at queue %q: %w", h.queue, err)
	}
	return q.Consumers - 1, nil
}

func (h *consumerSet) channel() *amqp.Channel { return h.channels[len(h.channels)-1] }

// grow begins to consume with a fresh window, on a fresh channel if need be.
func (h *consumerSet) grow() error {
	if len(h.channels) == 0 || h.consumers == WindowsPerChannel {
		ch, err := h.conn.Channel()
		if err != nil {
			return fmt.Errorf("open a channel to look at %q: %w", h.queue, err)
		}
		h.channels, h.held, h.consumers = append(h.channels, ch), append(h.held, 0), 0
	}
	ch := h.channel()
	if err := ch.Qos(h.size, 0, false); err != nil {
		return fmt.Errorf("set the prefetch: %w", err)
	}
	h.closed = ch.NotifyClose(make(chan *amqp.Error, 1))
	h.consumers++
	h.tag = fmt.Sprintf("look-%02d-%s", h.consumers, contract.NewID()) // in order, see windowsPerChannel
	var err error
	if h.deliveries, err = ch.Consume(h.queue, h.tag, false, false, false, false, nil); err != nil {
		return fmt.Errorf("consume from %q: %w", h.queue, err)
	}
	h.kept, h.bytes = 0, 0
	return nil
}

// keep holds the message that was taken last, of so many bytes, until release.
// More will be taken.
func (h *consumerSet) keep(size int) error {
	h.kept++
	h.held[len(h.held)-1]++
	h.bytes += size
	if h.kept < h.size {
		return nil
	}
	// The old consumer ends after the new one has begun, so that others see
	// at any moment that somebody is there. It has its fill and gets no more.
	old, tag := h.channel(), h.tag
	fits := h.budget / max(h.bytes/h.kept, 1)
	h.size = max(1, min(2*h.size, fits, channel.MaxPrefetch))
	if err := h.grow(); err != nil {
		return err
	}
	if err := old.Cancel(tag, false); err != nil {
		return fmt.Errorf("end a consumer of %q: %w", h.queue, err)
	}
	return nil
}

// next takes the next message; nil when there is none.
func (h *consumerSet) next(ctx context.Context) (*amqp.Delivery, error) {
	check := time.NewTimer(stallCheck)
	defer check.Stop()
	for empty := 0; ; {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case d, ok := <-h.deliveries:
			if !ok {
				return nil, h.lost()
			}
			return &d, nil
		case <-check.C: // others may have taken some, or its count was not exact
			ready, err := h.ready()
			if err != nil {
				return nil, h.lost()
			}
			if empty++; ready > 0 {
				empty = 0
			}
			if empty == 2 {
				return nil, nil
			}
			check.Reset(stallCheck)
		}
	}
}

func (h *consumerSet) lost() error {
	why := "its queue was deleted or has moved"
	select {
	case e := <-h.closed:
		why = channel.CloseReason(e).Error()
	default:
	}
	return &contract.Error{
		Code: contract.CodeUnavailable, Executed: contract.ExecutedNo,
		Detail: fmt.Sprintf("the broker ended the look at %q (%s): what was not removed is still there, begin again", h.queue, why),
	}
}

// settle waits until the queue has taken the acknowledgements.
func (h *consumerSet) settle() error {
	for _, ch := range h.channels {
		if channel.SettleAcks(ch, h.queue) != nil {
			return h.lost()
		}
	}
	return nil
}

// release gives back what was kept, in order: the messages of a channel come
// back some time after it is closed, so each waits for those of the one before,
// and nobody here takes them once more.
func (h *consumerSet) release() {
	if len(h.channels) > 1 {
		_ = h.channel().Cancel(h.tag, false) // it fails if the channel has gone, and all of it with it
	}
	last := len(h.channels) - 1
	for i, ch := range h.channels {
		if i < last {
			h.closeAndAwait(ch, h.held[i])
		} else {
			channel.Close(ch)
		}
	}
	h.channels, h.held, h.consumers = nil, nil, 0
}

// closeAndAwait closes ch and waits, not for ever, until the n messages that it
// kept are back in the queue.
func (h *consumerSet) closeAndAwait(ch *amqp.Channel, n int) {
	before, err := h.ready()
	channel.Close(ch)
	for deadline := time.Now().Add(channel.CloseTimeout); err == nil && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		var now int
		if now, err = h.ready(); now >= before+n {
			return
		}
	}
}

// ready is how many messages of the queue nobody has in hand.
func (h *consumerSet) ready() (int, error) {
	q, err := h.channel().QueueDeclarePassive(h.queue, true, false, false, false, nil)
	return q.Messages, err
}
