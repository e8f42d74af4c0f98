package rabbit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"
)

// homePatience is how long a classic queue may take to be declared before its
// node is taken to be down.
const homePatience = 5 * time.Second

// errHomeDown says that a queue cannot be used before its node is back.
var errHomeDown = errors.New("its node of the RabbitMQ cluster is down: it comes back with that node")

// rehome declares the classic queues of t, each of which lives on one node of
// a cluster, also while that node is down. RabbitMQ 4 keeps a declaration
// waiting then, for more than a minute (probed on 4.0.5 and 4.3.6), but lets
// such a queue be deleted: it is declared anew, on the node that conn leads
// to. What it held are calls that nobody will answer, and only their callers'
// deadlines tell. RabbitMQ 3 lets nobody touch the queue (probed on 3.10.8):
// that is errHomeDown.
func (b *Broker) rehome(ctx context.Context, conn *amqp.Connection, t topology) error {
	for _, q := range t.queues {
		if t.fixed || q.arguments["x-queue-type"] != "classic" {
			continue
		}
		declared := make(chan error, 1)
		go func() { declared <- q.declareAlone(conn) }() // ends with the connection at the latest
		patience := time.NewTimer(homePatience)
		select {
		case err := <-declared:
			patience.Stop()
			if err != nil {
				return err
			}
			continue
		case <-ctx.Done():
			patience.Stop()
			return ctx.Err()
		case <-patience.C:
		}
		// A queue that somebody consumes is only slow to answer.
		if err := q.deleteUnused(conn); err != nil {
			b.log.Warn("a queue is slow to answer", zap.String("queue", q.name), zap.Error(err))
			continue
		}
		if err := q.declareAlone(conn); err != nil {
			return err
		}
		b.log.Warn("moved a queue: its node of the cluster does not answer", zap.String("queue", q.name))
	}
	return nil
}

// declareAlone declares q on a channel of its own.
func (q queue) declareAlone(conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to declare queue %q: %w", q.name, err)
	}
	defer ch.Close()
	_, err = ch.QueueDeclare(q.name, true, false, false, false, q.arguments)
	if err != nil {
		return explainDeclare(fmt.Sprintf("queue %q", q.name), err)
	}
	return nil
}

func (q queue) deleteUnused(conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to delete queue %q: %w", q.name, err)
	}
	defer ch.Close()
	_, err = ch.QueueDelete(q.name, true, false, false)
	return err
}

// isHomeDown recognises the refusal of RabbitMQ 3 to use a classic queue whose
// node is down.
func isHomeDown(e *amqp.Error) bool {
	return e.Code == amqp.NotFound && strings.Contains(e.Reason, "is down or inaccessible")
}
