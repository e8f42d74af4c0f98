package cache

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/rabbet-fn/rabbet/runtime/redisurl"
)

// redisStore is a store on Redis: one server, those that sentinels name, or a cluster.
type redisStore struct {
	client  redis.UniversalClient
	cluster bool // keys are spread over servers, and no MGET spans them
	timeout time.Duration
}

func openRedis(url string, timeout time.Duration) (*redisStore, error) {
	logging.Disable() // the client would write to stderr; the guard says what matters, once
	o, err := redisurl.Parse(url)
	if err != nil {
		return nil, err
	}
	if o.PoolSize == 0 {
		o.PoolSize = 64
	}
	o.ReadTimeout, o.WriteTimeout, o.PoolTimeout, o.DialTimeout = timeout, timeout, timeout, 5*timeout
	o.MaxRetries, o.DialerRetries = 1, 1
	return &redisStore{client: redis.NewUniversalClient(o), cluster: o.IsClusterMode, timeout: timeout}, nil
}

func (s *redisStore) get(ctx context.Context, keys []string, values [][]byte) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if s.cluster {
		return s.getEach(ctx, keys, values)
	}
	found, err := s.client.MGet(ctx, keys...).Result()
	if err != nil {
		return err
	}
	if len(found) != len(keys) {
		return fmt.Errorf("redis answered %d values for %d keys", len(found), len(keys))
	}
	for i, v := range found {
		values[i] = nil
		if text, ok := v.(string); ok {
			values[i] = bytesOf(text)
		}
	}
	return nil
}

// getEach sends one pipeline to each server that has some of the keys.
func (s *redisStore) getEach(ctx context.Context, keys []string, values [][]byte) error {
	pipeline := s.client.Pipeline()
	replies := make([]*redis.StringCmd, len(keys))
	for i, key := range keys {
		replies[i] = pipeline.Get(ctx, key)
	}
	if _, err := pipeline.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	for i, reply := range replies {
		text, err := reply.Result()
		switch {
		case errors.Is(err, redis.Nil):
			values[i] = nil
		case err != nil:
			return err
		default:
			values[i] = bytesOf(text)
		}
	}
	return nil
}

func (s *redisStore) set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.client.Set(ctx, key, value, ttl).Err()
}

func (s *redisStore) add(ctx context.Context, key string, value []byte, ttl time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	pipeline := s.client.Pipeline() // SET with NX and GET together would want Redis 7
	pipeline.SetNX(ctx, key, value, ttl)
	there := pipeline.Get(ctx, key)
	if _, err := pipeline.Exec(ctx); err != nil {
		return nil, err
	}
	return there.Bytes()
}

func (s *redisStore) close() error { return s.client.Close() }

// bytesOf is []byte(s) without the copy, for bytes that nobody changes.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
