package deadletter

import (
	"context"
	"errors"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/publish"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// Headers of a dead letter. All begin with headerDeadPrefix.
const (
	headerDeadPrefix   = "rabbet-dead-"
	HeaderDeadReason   = "rabbet-dead-reason" // contract.Code
	HeaderDeadError    = "rabbet-dead-error"
	HeaderDeadAttempts = "rabbet-dead-attempts"
	headerDeadFirst    = "rabbet-dead-first" // RFC 3339: the first failure
	headerDeadLast     = "rabbet-dead-last"  // RFC 3339: the last failure
	HeaderDeadWorker   = "rabbet-dead-worker"
	HeaderDeadStack    = "rabbet-dead-stack"
)

// maxReason is the largest size of an error or a stack in a dead letter, in bytes.
const maxReason = 4 << 10

// Bury publishes d as a dead letter of the function over p. It returns nil once the
// broker has confirmed it.
func (s *Store) Bury(ctx context.Context, p *publish.Publisher, function string, d *amqp.Delivery, e *contract.Event, first, last time.Time, reason *contract.Error) error {
	own := amqp.Table{
		HeaderDeadReason:   string(reason.Code),
		HeaderDeadError:    clip(reason.Error()),
		HeaderDeadAttempts: int64(e.Attempt),
		headerDeadFirst:    first.UTC().Format(time.RFC3339Nano),
		headerDeadLast:     last.UTC().Format(time.RFC3339Nano),
		HeaderDeadWorker:   s.cfg.Process,
	}
	if len(reason.Stack) > 0 {
		own[HeaderDeadStack] = clip(string(reason.Stack))
	}
	err := p.Publish(ctx, s.cfg.Names.Dead(), function, wire.CopyOf(d, e, own))
	if errors.Is(err, contract.ErrUnroutable) { // the queue was deleted
		return errors.Join(err, s.cfg.Consume.Declare(ctx, s.cfg.Names.DeadLetters(function).Declare))
	}
	return err
}

func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxReason)], "") }
