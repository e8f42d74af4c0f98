package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/redisurl"
)

// store keeps bytes under keys of at most 250 bytes of printable ASCII. It may
// lose any of them at any time. What it returns, and what it was given, is not
// changed afterwards.
type store interface {
	// get puts what is stored under keys into values, nil for nothing, in one round trip.
	get(ctx context.Context, keys []string, values [][]byte) error
	// set stores value for ttl, at most 30 days.
	set(ctx context.Context, key string, value []byte, ttl time.Duration) error
	// add stores value if there is nothing yet, and returns what is there.
	add(ctx context.Context, key string, value []byte, ttl time.Duration) ([]byte, error)
	close() error
}

// openStore returns the store at url. An operation on it takes little more
// than timeout, even if its ctx allows more.
func openStore(url string, timeout time.Duration) (store, error) {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return nil, errors.New("the cache URL has no scheme: write memory://, redis://host:6379 or memcached://host:11211")
	}
	switch scheme {
	case "memory":
		return openMemory(rest)
	case "memcached":
		return openMemcached(rest, timeout)
	}
	if slices.Contains(redisurl.Schemes, scheme) {
		return openRedis(url, timeout)
	}
	return nil, fmt.Errorf("cache URL with scheme %q: choose memory, redis, rediss, redis+sentinel, redis+cluster or memcached", scheme)
}
