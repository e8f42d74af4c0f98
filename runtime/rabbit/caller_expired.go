package rabbit

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// forwardExpired answers calls that their queue did not keep, whoever made
// them: they were not executed. A caller learns it in the moment of its
// deadline, or at once if the queue was full, and the way of all other calls
// costs nothing for it.
func (c *caller) forwardExpired(ctx context.Context, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel for expired calls: %w", err)
	}
	defer ch.Close()
	if err := c.b.names.common().declare(ch); err != nil {
		return err
	}
	err = c.b.rehome(ctx, conn, c.b.names.expiredCalls())
	if errors.Is(err, errHomeDown) {
		// No reason to be unwell: a caller whose call expires now learns it at
		// its deadline, but not whether the call was executed.
		c.b.log.Warn("callers are not told of calls that expire", zap.Error(err))
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.b.names.expiredCalls().declare(ch); err != nil {
		return err
	}
	expired, err := ch.Consume(c.b.names.expired(), "", true, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("consume from %q: %w", c.b.names.expired(), err)
	}
	return eachDelivery(ctx, c.b.names.expired(), expired, func(d *amqp.Delivery) {
		if err := answerExpired(ch, d); err != nil {
			c.b.cfg.Log.Debug("an expired call is not answered", zap.String("id", d.MessageId), zap.Error(err))
		}
	})
}

func answerExpired(ch *amqp.Channel, d *amqp.Delivery) error {
	if d.ReplyTo == "" {
		return nil
	}
	failed := contract.Expired(contract.ExecutedNo)
	if text(d.Headers, "x-first-death-reason") == "maxlen" {
		failed = &contract.Error{
			Code: contract.CodeRefused, Executed: contract.ExecutedNo, After: time.Second,
			Detail: fmt.Sprintf("the queue behind the routing key %q is full", d.RoutingKey),
		}
	}
	body := encodeFailure(failed)
	if d.ContentType != contentTypeCalls {
		return ch.Publish("", d.ReplyTo, false, false, amqp.Publishing{
			ContentType: contentTypeJSON, CorrelationId: d.CorrelationId, Body: body,
			Headers: amqp.Table{headerError: string(failed.Code)},
		})
	}
	calls, err := decodeCalls(d.Body)
	if err != nil {
		return err
	}
	replies := make([]wireReply, len(calls))
	for i := range calls {
		replies[i] = wireReply{tag: calls[i].tag, code: failed.Code, body: body}
	}
	return ch.Publish("", d.ReplyTo, false, false, amqp.Publishing{
		ContentType: contentTypeReplies, Body: encodeReplies(replies),
	})
}
