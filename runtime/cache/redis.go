package cache

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unsafe"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// redisStore is a store on Redis: one server, those that sentinels name, or a cluster.
type redisStore struct {
	client  redis.UniversalClient
	cluster bool // keys are spread over servers, and no MGET spans them
	timeout time.Duration
}

func openRedis(scheme, rest string, timeout time.Duration) (*redisStore, error) {
	logging.Disable() // the client would write to stderr; the guard says what matters, once
	base, mode, _ := strings.Cut(scheme, "+")
	rawURL, err := withAddresses(base, rest, mode)
	if err != nil {
		return nil, err
	}
	o := &redis.UniversalOptions{}
	switch mode {
	case "cluster":
		c, err := redis.ParseClusterURL(rawURL)
		if err != nil {
			return nil, fmt.Errorf("%s URL: %w", scheme, err)
		}
		o.Addrs, o.Username, o.Password, o.TLSConfig, o.PoolSize = c.Addrs, c.Username, c.Password, c.TLSConfig, c.PoolSize
		o.IsClusterMode = true
	case "sentinel":
		s, err := redis.ParseFailoverURL(rawURL)
		if err != nil {
			return nil, fmt.Errorf("%s URL: %w", scheme, err)
		}
		if s.MasterName == "" {
			return nil, fmt.Errorf("%s URL: add ?master_name=, the name that the sentinels know the master by", scheme)
		}
		o.Addrs, o.MasterName, o.DB, o.Username, o.Password = s.SentinelAddrs, s.MasterName, s.DB, s.Username, s.Password
		o.SentinelUsername, o.SentinelPassword, o.TLSConfig, o.PoolSize = s.SentinelUsername, s.SentinelPassword, s.TLSConfig, s.PoolSize
	default:
		s, err := redis.ParseURL(rawURL)
		if err != nil {
			return nil, fmt.Errorf("%s URL: %w", scheme, err)
		}
		o.Addrs, o.DB, o.Username, o.Password, o.TLSConfig, o.PoolSize = []string{s.Addr}, s.DB, s.Username, s.Password, s.TLSConfig, s.PoolSize
	}
	if o.PoolSize == 0 {
		o.PoolSize = 64
	}
	// The client heeds a ctx's deadline only when told to; its own limits hold for the rest.
	o.ContextTimeoutEnabled = true
	o.ReadTimeout, o.WriteTimeout, o.PoolTimeout, o.DialTimeout = timeout, timeout, timeout, 5*timeout
	o.MaxRetries, o.DialerRetries = 1, 1
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return &redisStore{client: redis.NewUniversalClient(o), cluster: o.IsClusterMode, timeout: timeout}, nil
}

// withAddresses writes "user:password@a:1,b:2/0?x=y" the way the client reads
// it: the first address in its place, the others as parameters.
func withAddresses(scheme, rest, mode string) (string, error) {
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	authority, tail := rest[:end], rest[end:]
	at := strings.LastIndex(authority, "@") + 1
	addresses := strings.Split(authority[at:], ",")
	if len(addresses) > 1 && mode == "" {
		return "", errors.New("redis:// takes one address: write redis+cluster:// or redis+sentinel:// for several")
	}
	u, err := url.Parse(scheme + "://" + authority[:at] + addresses[0] + tail)
	if err != nil { // the error quotes the URL, and the URL may hold the password
		return "", errors.New("the Redis URL cannot be read: write redis://user:password@host:6379/0, with %XX for special characters in the password")
	}
	query := u.Query()
	for _, a := range addresses[1:] {
		query.Add("addr", a)
	}
	u.RawQuery = query.Encode()
	return u.String(), nil
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
