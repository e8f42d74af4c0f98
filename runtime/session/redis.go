package session

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/rabbet-fn/rabbet/runtime/redisurl"
)

// redisRecords is records on Redis. It takes the place of scs' goredisstore,
// which overwrites what others have changed meanwhile and knows no cluster.
// Each operation is one command on one key, and one round trip.
type redisRecords struct {
	client redis.UniversalClient
	prefix string
	idle   time.Duration
}

func openRedis(url string, cfg Config) (*redisRecords, error) {
	o, err := redisurl.Parse(url)
	if err != nil {
		return nil, err
	}
	logging.Disable() // the client would write to stderr; each error is told to who asked
	if o.PoolSize == 0 {
		o.PoolSize = 64
	}
	o.ReadTimeout, o.WriteTimeout, o.PoolTimeout, o.DialTimeout = cfg.Timeout, cfg.Timeout, cfg.Timeout, cfg.Timeout
	o.DialerRetries = 1
	// Sent again because its answer was lost, a write would take its own first effect for somebody else's.
	o.MaxRetries = -1
	return &redisRecords{redis.NewUniversalClient(o), cfg.Namespace + ":session:", cfg.Idle}, nil
}

func (r *redisRecords) find(ctx context.Context, key string) ([]byte, error) {
	b, err := r.client.GetEx(ctx, r.prefix+key, r.idle).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return b, err
}

var (
	swapScript = redis.NewScript(`
		if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
		redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
		return 1`)
	removeScript = redis.NewScript(`
		if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
		return redis.call('DEL', KEYS[1])`)
)

func (r *redisRecords) swap(ctx context.Context, key string, old, value []byte, ttl time.Duration) (bool, error) {
	ttl = max(ttl, time.Millisecond) // Redis refuses to store for no time at all
	if old == nil {
		return r.client.SetNX(ctx, r.prefix+key, value, ttl).Result()
	}
	return swapScript.Run(ctx, r.client, []string{r.prefix + key}, old, value, ttl.Milliseconds()).Bool()
}

func (r *redisRecords) removeIf(ctx context.Context, key string, old []byte) (bool, error) {
	return removeScript.Run(ctx, r.client, []string{r.prefix + key}, old).Bool()
}

func (r *redisRecords) remove(ctx context.Context, key string) error {
	return r.client.Del(ctx, r.prefix+key).Err()
}

func (r *redisRecords) close() error { return r.client.Close() }
