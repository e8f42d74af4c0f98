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

// The headers of a dead letter. All begin with headerDeadPrefix.
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

// maxReason is how many bytes of an error or of a stack a dead letter keeps.
const maxReason = 4 << 10

// Bury publishes the dead letter that d becomes, by p.
func (l *Store) Bury(ctx context.Context, p *publish.Publisher, function string, d *amqp.Delivery, e *contract.Event, first, last time.Time, reason *contract.Error) error {
	own := amqp.Table{
		HeaderDeadReason:   string(reason.Code),
		HeaderDeadError:    clip(reason.Error()),
		HeaderDeadAttempts: int64(e.Attempt),
		headerDeadFirst:    first.UTC().Format(time.RFC3339Nano),
		headerDeadLast:     last.UTC().Format(time.RFC3339Nano),
		HeaderDeadWorker:   l.cfg.Process,
	}
	if len(reason.Stack) > 0 {
		own[HeaderDeadStack] = clip(string(reason.Stack))
	}
	err := p.Publish(ctx, l.cfg.Names.Dead(), function, wire.CopyOf(d, e, own))
	if errors.Is(err, contract.ErrUnroutable) { // somebody has deleted the queue
		return errors.Join(err, l.cfg.Consume.Declare(ctx, l.cfg.Names.DeadLetters(function).Declare))
	}
	return err
}

func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxReason)], "") }
