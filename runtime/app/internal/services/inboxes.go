package services

import (
	"context"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/inbox"
	"github.com/rabbet-fn/rabbet/runtime/redisurl"
)

// An inboxStore is a store that several processes share.
type inboxStore interface {
	inbox.Store
	// Forgetful says why the store may lose what it keeps; "" if it does not.
	Forgetful(ctx context.Context) string
	Close() error
}

// inboxes are the stores of handled events that there are.
var inboxes = table[func(url string) (inboxStore, error)]{
	{openRedisInbox, redisurl.Schemes},
}

func openRedisInbox(url string) (inboxStore, error) {
	s, err := inbox.OpenRedis(url)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// GuardOnce wraps those of fns that are registered with faas.Once, so that they
// succeed once for each key. It keeps the keys in the store that c names, or else
// in fallback, which may be nil. Call close when no function runs any more.
func GuardOnce(ctx context.Context, c *config.Config, fallback inbox.Store, fns []contract.Function, log *zap.Logger) (guarded []contract.Function, close func() error, err error) {
	store, close := fallback, func() error { return nil }
	if c.StateURL != "" {
		open, err := inboxes.find("STATE_URL", c.StateURL)
		if err != nil {
			return nil, nil, err
		}
		shared, err := open(c.StateURL)
		if err != nil {
			return nil, nil, config.Unusable(config.Prefix+"STATE_URL", c.StateURL, "%v", err)
		}
		if why := shared.Forgetful(ctx); why != "" {
			log.Warn("events may be handled twice: the store at "+config.Prefix+"STATE_URL forgets", zap.String("why", why))
		}
		store, close = shared, shared.Close
	}
	if store != nil {
		return inbox.New(store, inbox.Config{Namespace: c.Namespace, Keep: c.OnceFor, Log: log}).Guard(fns), close, nil
	}
	for _, f := range fns {
		if f.Once != nil {
			return nil, nil, config.Unusable(config.Prefix+"STATE_URL", "", "the function %q handles each event once and needs a store that remembers: set it to redis://host:6379/0", f.Name)
		}
	}
	return fns, close, nil
}
