package main

import (
	"github.com/rabbet-fn/rabbet/runtime/cache/memcached"
	"github.com/rabbet-fn/rabbet/runtime/cache/memory"
	"github.com/rabbet-fn/rabbet/runtime/cache/redis"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
)

// cacheStores are the stores of the results cache, by the scheme of the cache URL.
var cacheStores = store.Schemes{
	"memory":          memory.Open,
	"redis":           redis.Open,
	"rediss":          redis.Open,
	"redis+sentinel":  redis.Open,
	"rediss+sentinel": redis.Open,
	"redis+cluster":   redis.Open,
	"rediss+cluster":  redis.Open,
	"memcached":       memcached.Open,
}
