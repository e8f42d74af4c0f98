package rabbit

import (
	"context"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// forwardExpired answers calls that expired in their queue, whoever made
// them: they were not executed. A caller learns it in the moment of its
// deadline, and the way of the calls in time costs nothing for it.
func (c *caller) forwardExpired(ctx context.Context, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel for expired calls: %w", err)
	}
	defer ch.Close()
	if err := c.b.names.expiredCalls().declare(ch); err != nil {
		return err
	}
	expired, err := ch.Consume(c.b.names.expired(), "", true, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("consume from %q: %w", c.b.names.expired(), err)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case d, ok := <-expired:
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("the broker ended the consumer of %q", c.b.names.expired())
			}
			if err := answerExpired(ch, &d); err != nil {
				c.b.cfg.Log.Debug("an expired call is not answered", zap.String("id", d.MessageId), zap.Error(err))
			}
		}
	}
}

func answerExpired(ch *amqp.Channel, d *amqp.Delivery) error {
	if d.ReplyTo == "" {
		return nil
	}
	body := encodeFailure(faas.Expired(faas.ExecutedNo))
	if d.ContentType != contentTypeCalls {
		return ch.Publish("", d.ReplyTo, false, false, amqp.Publishing{
			ContentType: contentTypeJSON, CorrelationId: d.CorrelationId, Body: body,
			Headers: amqp.Table{headerError: string(faas.CodeExpired)},
		})
	}
	calls, _, err := decodeCalls(d.Body)
	if err != nil {
		return err
	}
	replies := make([]wireReply, len(calls))
	for i := range calls {
		replies[i] = wireReply{tag: calls[i].tag, code: faas.CodeExpired, body: body}
	}
	return ch.Publish("", d.ReplyTo, false, false, amqp.Publishing{
		ContentType: contentTypeReplies, Body: encodeReplies(replies),
	})
}
