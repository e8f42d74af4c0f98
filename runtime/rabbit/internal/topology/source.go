package topology

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
)

// DeclareSource declares the exchange on which a function listens as a topic
// exchange, unless it exists.
func DeclareSource(ctx context.Context, l *connection.Connection, n Names, source string) error {
	if source == n.Events() || n.Predeclared {
		return nil
	}
	t := n.Source(source)
	err := l.Declare(ctx, t.CheckExists)
	if e, ok := errors.AsType[*amqp.Error](err); !ok || e.Code != amqp.NotFound {
		return err
	}
	return l.Declare(ctx, t.Declare)
}

// CheckSource fails if the exchange on which fn listens is a direct one, and fn
// has patterns, which would never match. Only a declaration reveals the type.
func CheckSource(ctx context.Context, l *connection.Connection, n Names, fn *contract.Descriptor) error {
	i := slices.IndexFunc(fn.Keys, func(key string) bool { return strings.ContainsAny(key, "*#") })
	if fn.Exchange == "" || fn.Exchange == n.Events() || i < 0 || n.Predeclared {
		return nil
	}
	err := l.Declare(ctx, n.Source(fn.Exchange).Declare)
	e, ok := errors.AsType[*amqp.Error](err)
	if !ok {
		return err
	}
	if d, ok := ParseDrift(e.Reason); !ok || d.Argument != "type" || d.Found != amqp.ExchangeDirect {
		return nil // it is used as it stands
	}
	return &declareError{fmt.Sprintf("exchange %q is a direct one, where nothing has the key %q: make it a topic exchange, or name keys without patterns", fn.Exchange, fn.Keys[i]), e}
}
