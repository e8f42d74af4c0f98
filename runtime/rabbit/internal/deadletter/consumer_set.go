package deadletter

import (
	"context"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
)

// consumerSet receives the messages of a queue without acknowledging them.
//
// A consumer receives as many messages as its window has. Once those that are kept
// fill the window, another consumer with a larger window receives the next ones. In
// this way any number of messages can be held unacknowledged, while only few wait
// in memory.
type consumerSet struct {
	conn   *amqp.Connection
	queue  string
	size   int // messages of the window
	budget int // bytes of a window, approximately

	channels   []*amqp.Channel // the last one is in use
	held       []int           // messages that each channel keeps
	consumers  int             // started on the channel in use
	tag        string
	deliveries <-chan amqp.Delivery
	closed     <-chan *amqp.Error
	kept       int // messages kept in the window
	bytes      int // of the messages kept in the window
}

// open starts the first consumer and returns how many other consumers the queue
// has.
func (h *consumerSet) open() (others int, err error) {
	if err := h.grow(); err != nil {
		return 0, err
	}
	q, err := h.channel().QueueDeclarePassive(h.queue, true, false, false, false, nil)
	if err != nil {
		return 0, fmt.Errorf("inspect queue %q: %w", h.queue, err)
	}
	return q.Consumers - 1, nil
}

func (h *consumerSet) channel() *amqp.Channel { return h.channels[len(h.channels)-1] }

// grow starts a consumer with a new window, on a new channel if necessary.
func (h *consumerSet) grow() error {
	if len(h.channels) == 0 || h.consumers == WindowsPerChannel {
		ch, err := h.conn.Channel()
		if err != nil {
			return fmt.Errorf("open a channel to browse %q: %w", h.queue, err)
		}
		h.channels, h.held, h.consumers = append(h.channels, ch), append(h.held, 0), 0
	}
	ch := h.channel()
	if err := ch.Qos(h.size, 0, false); err != nil {
		return fmt.Errorf("set the prefetch: %w", err)
	}
	h.closed = ch.NotifyClose(make(chan *amqp.Error, 1))
	h.consumers++
	h.tag = fmt.Sprintf("browse-%02d-%s", h.consumers, contract.NewID()) // sorted in order of creation, see WindowsPerChannel
	var err error
	if h.deliveries, err = ch.Consume(h.queue, h.tag, false, false, false, false, nil); err != nil {
		return fmt.Errorf("consume from %q: %w", h.queue, err)
	}
	h.kept, h.bytes = 0, 0
	return nil
}

// keep holds the message that was received last, of that size in bytes, until
// release.
func (h *consumerSet) keep(size int) error {
	h.kept++
	h.held[len(h.held)-1]++
	h.bytes += size
	if h.kept < h.size {
		return nil
	}
	// The old consumer is canceled after the new one has started, so that other
	// browsers see a consumer at any time. Its window is full, so that it receives
	// nothing more.
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

// next returns the next message, or nil if there is none.
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
		case <-check.C: // other clients may have received some, or the count was not exact
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
		Detail: fmt.Sprintf("the broker ended the browse of %q (%s): messages that were not removed are still there, start again", h.queue, why),
	}
}

// settle waits until the queue has stored the acknowledgements.
func (h *consumerSet) settle() error {
	for _, ch := range h.channels {
		if channel.SettleAcks(ch, h.queue) != nil {
			return h.lost()
		}
	}
	return nil
}

// release requeues in order what was kept. The messages of a channel are requeued
// some time after it is closed, so that each channel is closed after the messages
// of the previous one are back.
func (h *consumerSet) release() {
	if len(h.channels) > 1 {
		_ = h.channel().Cancel(h.tag, false) // fails if the channel is closed
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

// closeAndAwait closes ch and waits, for CloseTimeout at most, until its n messages
// are back in the queue.
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

// ready returns how many messages of the queue are not held by a consumer.
func (h *consumerSet) ready() (int, error) {
	q, err := h.channel().QueueDeclarePassive(h.queue, true, false, false, false, nil)
	return q.Messages, err
}
