package services

import (
	"context"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/inbox"
	"github.com/rabbet-fn/rabbet/runtime/inbox/redis"
	"github.com/rabbet-fn/rabbet/runtime/inbox/store"
	"github.com/rabbet-fn/rabbet/runtime/redisurl"
)

// inboxes are the stores of handled events that there are.
var inboxes = table[func(url string) (store.Store, error)]{
	{redis.Open, redisurl.Schemes},
}

// WrapOnce wraps those of fns that are registered with faas.Once, so that they
// succeed once for each key. It keeps the keys in the store that c names, or else
// in fallback, which may be nil. Call close when no function runs any more.
func WrapOnce(ctx context.Context, c *config.Config, fallback store.Store, fns []contract.Function, log *zap.Logger) (wrapped []contract.Function, close func() error, err error) {
	keys, close := fallback, func() error { return nil }
	if c.StateURL != "" {
		open, err := inboxes.find("STATE_URL", c.StateURL)
		if err != nil {
			return nil, nil, err
		}
		shared, err := open(c.StateURL)
		if err != nil {
			return nil, nil, config.Unusable(config.Prefix+"STATE_URL", c.StateURL, "%v", err)
		}
		if why := shared.DataLossRisk(ctx); why != "" {
			log.Warn("events may be handled twice: the store at "+config.Prefix+"STATE_URL may lose data", zap.String("why", why))
		}
		keys, close = shared, shared.Close
	}
	if keys != nil {
		return inbox.New(keys, inbox.Config{Namespace: c.Namespace, Keep: c.OnceFor, Log: log}).Wrap(fns), close, nil
	}
	for _, f := range fns {
		if f.Once != nil {
			return nil, nil, config.Unusable(config.Prefix+"STATE_URL", "", "the function %q handles each event once and needs a store that remembers: set it to redis://host:6379/0", f.Name)
		}
	}
	return fns, close, nil
}
