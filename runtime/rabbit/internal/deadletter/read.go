package deadletter

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// Read returns the dead letter in a delivery from the queue of fn. Rabbet, the
// broker or another client may have published it.
func Read(n topology.Names, d *amqp.Delivery, fn string) contract.DeadLetter {
	l := contract.DeadLetter{
		Function: fn, Event: wire.ToEvent(n, d),
		Code: contract.Code(wire.String(d.Headers, HeaderDeadReason)), Error: wire.String(d.Headers, HeaderDeadError),
		Worker: wire.String(d.Headers, HeaderDeadWorker), Stack: wire.String(d.Headers, HeaderDeadStack),
	}
	l.Event.Attempt = int(wire.Int(d.Headers, HeaderDeadAttempts))
	l.Event.NotBefore, l.Event.Redelivered = time.Time{}, false
	l.First, _ = time.Parse(time.RFC3339Nano, wire.String(d.Headers, headerDeadFirst))
	l.Last, _ = time.Parse(time.RFC3339Nano, wire.String(d.Headers, headerDeadLast))
	death := deathIn(d.Headers, n.EventQueue(fn))
	if l.Code == "" {
		explainDeath(n, &l, death)
	}
	l.Last = cmp.Or(l.Last, death.time, d.Timestamp)
	if first := wire.Int(d.Headers, wire.HeaderFirst); first > 0 && l.First.IsZero() {
		l.First = time.UnixMilli(first)
	}
	l.First = cmp.Or(l.First, l.Last)
	l.Event.Key = cmp.Or(wire.String(d.Headers, wire.HeaderKey), death.key, d.RoutingKey)
	l.Event.Exchange = cmp.Or(wire.String(d.Headers, wire.HeaderExchange), death.exchange, d.Exchange)
	// wire.ToEvent generates these two if they are missing, with other values each
	// time.
	if ce, _ := l.Event.Headers[wire.CloudEventsPrefix+"id"].(string); d.MessageId == "" && ce == "" {
		l.Event.ID = idOf(d)
	}
	if ce, _ := l.Event.Headers[wire.CloudEventsPrefix+"time"].(string); ce == "" {
		l.Event.Time = d.Timestamp
	}
	return l
}

// idOf returns an id for a message without one, the same each time.
func idOf(d *amqp.Delivery) string {
	h := sha256.New()
	fmt.Fprintln(h, d.RoutingKey, d.Headers["x-death"])
	h.Write(d.Body)
	return base32.StdEncoding.EncodeToString(h.Sum(nil))[:26]
}

// death is what the broker says in x-death about a message that it dead-lettered.
type death struct {
	reason        string // rejected, expired, maxlen or delivery_limit
	exchange, key string
	time          time.Time
}

// deathIn returns the death in that queue, or otherwise the latest one.
func deathIn(headers amqp.Table, queue string) death {
	list, _ := headers["x-death"].([]any)
	var found death
	for _, item := range list {
		t, _ := item.(amqp.Table)
		in := wire.String(t, "queue") == queue
		if found.reason != "" && !in {
			continue
		}
		found = death{reason: wire.String(t, "reason"), exchange: wire.String(t, "exchange")}
		found.time, _ = t["time"].(time.Time)
		if keys, _ := t["routing-keys"].([]any); len(keys) > 0 {
			found.key, _ = keys[0].(string)
		}
		if in {
			break
		}
	}
	return found
}

// explainDeath sets the code and the error of a letter that Rabbet did not publish.
func explainDeath(n topology.Names, l *contract.DeadLetter, d death) {
	l.Code = contract.Code(d.reason)
	switch d.reason {
	case "delivery_limit":
		l.Code = contract.CodeLost
		l.Error = fmt.Sprintf("lost: delivered %d times, and each time its worker died, stopped, lost its connection or could not publish its copy", topology.DeliveryLimit+1)
	case "expired":
		l.Code = contract.CodeExpired
		l.Error = fmt.Sprintf("expired: the broker dropped it from %q after a time limit that is not Rabbet's: look for a policy", n.EventQueue(l.Function))
	case "maxlen":
		l.Code = contract.CodeRefused
		l.Error = fmt.Sprintf("refused: %q was full", n.EventQueue(l.Function))
	case "":
		l.Code, l.Error = "unknown", "unknown: another client published it here, without a reason"
	default:
		l.Error = fmt.Sprintf("%s: a consumer other than Rabbet's dead-lettered it", d.reason)
	}
}

// replayOf returns a dead letter as it was before it failed: the bytes (or those
// that have replaced them), the properties and the headers of its publisher.
func replayOf(d *amqp.Delivery, l *contract.DeadLetter) amqp.Publishing {
	p := withoutDeath(d, l)
	for name := range p.Headers {
		if strings.HasPrefix(name, headerDeadPrefix) || name == wire.HeaderAttempt || name == wire.HeaderFirst || name == wire.HeaderNotBefore {
			delete(p.Headers, name)
		}
	}
	return p
}

// withoutDeath returns a dead letter without the headers that the broker has added.
func withoutDeath(d *amqp.Delivery, l *contract.DeadLetter) amqp.Publishing {
	p := wire.CopyOf(d, &l.Event, nil)
	for name := range p.Headers {
		if strings.HasPrefix(name, "x-first-death-") || strings.HasPrefix(name, "x-last-death-") || name == "x-opt-deaths" {
			delete(p.Headers, name)
		}
	}
	p.Body = l.Event.Body
	return p
}
