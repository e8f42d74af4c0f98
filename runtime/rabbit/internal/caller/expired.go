package caller

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// forwardExpired answers the calls, of any process, that expired in their queue or
// found it full. A caller learns that at its deadline, or at once if the queue was
// full. Other calls cost nothing more for it.
func (c *Caller) forwardExpired(ctx context.Context, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel for expired calls: %w", err)
	}
	defer ch.Close()
	if err := c.cfg.Names.Common().Declare(ch); err != nil {
		return err
	}
	err = topology.RecreateUnreachable(ctx, conn, c.cfg.Names.ExpiredCalls(), c.cfg.Log)
	if errors.Is(err, topology.ErrNodeDown) {
		// The process stays healthy: a call that expires still fails at its
		// deadline, but without knowing whether it was executed.
		c.cfg.Log.Warn("cannot answer expired calls", zap.Error(err))
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.cfg.Names.ExpiredCalls().Declare(ch); err != nil {
		return err
	}
	expired, err := ch.Consume(c.cfg.Names.Expired(), "", true, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("consume from %q: %w", c.cfg.Names.Expired(), err)
	}
	return channel.EachDelivery(ctx, c.cfg.Names.Expired(), expired, func(d *amqp.Delivery) {
		if err := answerExpired(ch, d, c.executedOf(d.RoutingKey)); err != nil {
			c.cfg.Log.Debug("cannot answer an expired call", zap.String("id", d.MessageId), zap.Error(err))
		}
	})
}

// executedOf returns what is known of a call with that routing key that expired in
// its queue. Usually it was never started. But a call that is redelivered may have
// run on a worker that was lost; a function that only reads does no harm by that.
func (c *Caller) executedOf(key string) contract.Executed {
	for _, f := range c.cfg.Directory.Functions() {
		if f.Kind == contract.KindRequest && f.Keys[0] == key && f.Redeliver && !f.ReadOnly {
			return contract.ExecutedUnknown
		}
	}
	return contract.ExecutedNo
}

func answerExpired(ch *amqp.Channel, d *amqp.Delivery, executed contract.Executed) error {
	if d.ReplyTo == "" {
		return nil
	}
	failed := contract.Expired(executed)
	if wire.Text(d.Headers, "x-first-death-reason") == "maxlen" {
		failed = &contract.Error{
			Code: contract.CodeRefused, Executed: contract.ExecutedNo, After: time.Second,
			Detail: fmt.Sprintf("the queue behind the routing key %q is full", d.RoutingKey),
		}
	}
	body := wire.EncodeFailure(failed)
	if d.ContentType != wire.ContentTypeCalls {
		return ch.Publish("", d.ReplyTo, false, false, amqp.Publishing{
			ContentType: wire.ContentTypeJSON, CorrelationId: d.CorrelationId, Body: body,
			Headers: amqp.Table{wire.HeaderError: string(failed.Code)},
		})
	}
	calls, err := wire.DecodeCalls(d.Body)
	if err != nil {
		return err
	}
	replies := make([]wire.Reply, len(calls))
	for i := range calls {
		replies[i] = wire.Reply{Tag: calls[i].Tag, Code: failed.Code, Body: body}
	}
	return ch.Publish("", d.ReplyTo, false, false, amqp.Publishing{
		ContentType: wire.ContentTypeReplies, Body: wire.EncodeReplies(replies),
	})
}
