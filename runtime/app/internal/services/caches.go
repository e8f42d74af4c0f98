package services

import (
	"cmp"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/cache"
	"github.com/rabbet-fn/rabbet/runtime/cache/memcached"
	"github.com/rabbet-fn/rabbet/runtime/cache/memory"
	"github.com/rabbet-fn/rabbet/runtime/cache/redis"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/redisurl"
)

// caches are the stores of cached results that there are.
var caches = table[func(url string, o store.Options) (store.Store, error)]{
	{nil, []string{none}},
	{memory.Open, []string{"memory"}},
	{redis.Open, redisurl.Schemes},
	{memcached.Open, []string{"memcached"}},
}

// OpenCache opens the results cache that c names, or else the one at fallback; nil
// if that is "none". Invalidations are broadcast over b, which may be nil.
func OpenCache(c *config.Config, b cache.Broadcaster, fallback string, log *zap.Logger) (*cache.Results, error) {
	url := cmp.Or(c.CacheURL, fallback)
	if url == none {
		return nil, nil
	}
	keys, err := c.SealingKeys()
	if err != nil {
		return nil, err
	}
	open, err := caches.find("CACHE_URL", url)
	if err != nil {
		return nil, err
	}
	s, err := open(url, store.Options{Log: log})
	if err != nil {
		return nil, config.Unusable(config.Prefix+"CACHE_URL", url, "%v", err)
	}
	results, err := cache.New(s, cache.Config{
		Namespace: c.Namespace, Process: c.Process, Keys: keys,
		Broadcast: b, Local: int64(c.CacheLocal) << 20, Log: log,
	})
	if err != nil {
		return nil, config.Unusable(config.Prefix+"CACHE_URL", url, "%v", err)
	}
	return results, nil
}
