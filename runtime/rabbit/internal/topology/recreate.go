package topology

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"
)

// declareTimeout is how long the declaration of a classic queue may take before
// its node is considered down.
const declareTimeout = 5 * time.Second

// ErrNodeDown says that a queue cannot be used until its node is back.
var ErrNodeDown = errors.New("its node of the RabbitMQ cluster is down: it comes back with that node")

// RecreateUnreachable declares the classic queues of t. Each of them lives on one
// node of a cluster, which may be down. RabbitMQ 4 then lets a declaration wait
// for more than a minute (tested with 4.0.5 and 4.3.6), but lets the queue be
// deleted: it is deleted and declared on the node of conn. The calls that it held
// are lost, and expire at their deadlines. RabbitMQ 3 refuses both (tested with
// 3.10.8): that is ErrNodeDown.
func RecreateUnreachable(ctx context.Context, conn *amqp.Connection, t Part, log *zap.Logger) error {
	for _, q := range t.Queues {
		if t.Predeclared || q.Arguments["x-queue-type"] != "classic" {
			continue
		}
		declared := make(chan error, 1)
		go func() { declared <- q.declareAlone(conn) }() // ends with the connection at the latest
		timeout := time.NewTimer(declareTimeout)
		select {
		case err := <-declared:
			timeout.Stop()
			if err != nil {
				return err
			}
			continue
		case <-ctx.Done():
			timeout.Stop()
			return ctx.Err()
		case <-timeout.C:
		}
		// A queue with consumers is not deleted: its node is only slow.
		if err := q.deleteUnused(conn); err != nil {
			log.Warn("a queue is slow to answer", zap.String("queue", q.Name), zap.Error(err))
			continue
		}
		if err := q.declareAlone(conn); err != nil {
			return err
		}
		log.Warn("moved a queue: its node of the cluster does not answer", zap.String("queue", q.Name))
	}
	return nil
}

// declareAlone declares q on a channel of its own.
func (q Queue) declareAlone(conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to declare queue %q: %w", q.Name, err)
	}
	defer ch.Close()
	_, err = ch.QueueDeclare(q.Name, true, false, false, false, q.Arguments)
	if err != nil {
		return explainDeclare(fmt.Sprintf("queue %q", q.Name), err)
	}
	return nil
}

func (q Queue) deleteUnused(conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to delete queue %q: %w", q.Name, err)
	}
	defer ch.Close()
	_, err = ch.QueueDelete(q.Name, true, false, false)
	return err
}

// isNodeDown reports whether e is the refusal of RabbitMQ 3 to use a classic
// queue whose node is down.
func isNodeDown(e *amqp.Error) bool {
	return e.Code == amqp.NotFound && strings.Contains(e.Reason, "is down or inaccessible")
}
