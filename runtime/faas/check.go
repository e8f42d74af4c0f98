package faas

import (
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas/internal/schema"
)

var kebab = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// check reports why d does not work.
func check(d *contract.Descriptor, s *settings) error {
	if !kebab.MatchString(d.Name) || len(d.Name) > 100 {
		return fmt.Errorf("name it in kebab-case (lower-case letters, digits, single hyphens), in at most 100 bytes")
	}
	if d.Kind == contract.KindRequest && d.Keys[0] == "" {
		return fmt.Errorf("it has no routing key: return one from RoutingKey")
	}
	if len(d.Keys) == 0 {
		return fmt.Errorf("it has no routing key: return one from RoutingKey, or add faas.Keys")
	}
	for i, k := range d.Keys {
		if slices.Contains(d.Keys[:i], k) {
			return fmt.Errorf("routing key %q: it is there twice, and the first part of the function gets all of it", k)
		}
		if k == "" || len(k) > 255 {
			return fmt.Errorf("routing key %.40q: AMQP allows 1 to 255 bytes", k)
		}
		for word := range strings.SplitSeq(k, ".") {
			if len(word) > 1 && strings.ContainsAny(word, "*#") {
				return fmt.Errorf("routing key %q: * and # stand for whole words: write order.* or order.#", k)
			}
		}
		if d.Kind == contract.KindRequest && strings.ContainsAny(k, "*#") {
			return fmt.Errorf("routing key %q: a request function answers one key, not a pattern", k)
		}
	}
	if d.Kind == contract.KindRequest && (s.exchange != "" || s.ordered || s.once != nil || s.retry != nil) {
		return fmt.Errorf("faas.Exchange, faas.Ordered, faas.Once and faas.Retry are for event functions")
	}
	if d.Kind == contract.KindEvent && (s.readOnly || s.idempotent) {
		return fmt.Errorf("faas.ReadOnly and faas.Idempotent are for request functions: an event is always delivered again")
	}
	if d.Kind == contract.KindEvent && (s.route != "" || d.Cache != nil || d.Session) {
		return fmt.Errorf("faas.HTTP, faas.Cached and faas.UsesSession are for request functions")
	}
	if d.Route != nil && d.Route.Status == http.StatusNoContent && string(d.Output) != string(schema.Of(reflect.TypeFor[struct{}](), schema.Writes)) {
		return fmt.Errorf("faas.Status(204) says that there is no reply: return struct{}, or choose another status")
	}
	if d.Session && d.Cache != nil {
		return fmt.Errorf("faas.UsesSession and faas.Cached: one client's session must not end up in another's result; keep one of them")
	}
	if d.Concurrency < 1 || d.Concurrency > 10_000 {
		return fmt.Errorf("faas.Concurrency(%d): choose 1 to 10000", d.Concurrency)
	}
	if d.Timeout < time.Millisecond {
		return fmt.Errorf("faas.Timeout(%v): choose at least a millisecond", d.Timeout)
	}
	if longest := 25 * time.Minute; d.Timeout > longest && (d.Kind == contract.KindEvent || d.Redeliver) {
		return fmt.Errorf("faas.Timeout(%v): choose at most %v: RabbitMQ takes a worker that holds a message for 30 min for hung", d.Timeout, longest)
	}
	if err := checkRetry(d); err != nil {
		return err
	}
	if d.Route != nil {
		if err := checkParameters(d); err != nil {
			return err
		}
		if err := checkExposure(d); err != nil {
			return err
		}
	}
	if d.Once != nil {
		return checkOnce(d.Once, d.Reactions)
	}
	if d.Cache != nil {
		return checkCache(d.Cache, d.Route, d.Input)
	}
	return nil
}
