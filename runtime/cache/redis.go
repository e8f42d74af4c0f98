package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/redisurl"
)

// redisStore is a store on Redis: one server, the one that sentinels name, or a
// cluster. Nothing that writes is ever sent twice by the client: see store.add.
type redisStore struct {
	client  redis.UniversalClient
	timeout time.Duration
	log     *zap.Logger

	only *line // the way to the server; nil for a cluster

	cluster *redis.ClusterClient
	finding guard    // how it goes to find out which server of the cluster has a key
	nodes   sync.Map // *line by address
}

func openRedis(url string, timeout time.Duration, log *zap.Logger) (*redisStore, error) {
	logging.Disable() // the client would write to stderr; the guard says what matters, once
	o, err := redisurl.Parse(url)
	if err != nil {
		return nil, err
	}
	if o.PoolSize == 0 {
		o.PoolSize = 64
	}
	o.Protocol = 2 // no push messages to look out for
	o.ReadTimeout, o.WriteTimeout, o.PoolTimeout, o.DialTimeout = timeout, timeout, timeout, 2*timeout
	o.MaxRetries, o.DialerRetries = -1, 1
	plain := redis.NewDialer(&redis.Options{DialTimeout: o.DialTimeout, TLSConfig: o.TLSConfig})
	o.Dialer = (&conns{dial: plain}).Dial
	o.MaxRedirects = 2 // in a cluster, and of reads alone: a write asks the server that has the key
	s := &redisStore{client: redis.NewUniversalClient(o), timeout: timeout, log: log, finding: guard{log: log}}
	if s.cluster, _ = s.client.(*redis.ClusterClient); s.cluster == nil {
		s.only = newLine("redis", log, s.fetch)
	}
	return s, nil
}

func (s *redisStore) get(ctx context.Context, keys []string, values [][]byte) error {
	if s.only != nil {
		return s.only.get(ctx, keys, values)
	}
	return spread(ctx, keys, values, s.lineOf)
}

// lineOf returns the way to the server of the cluster that has key.
func (s *redisStore) lineOf(key string) (*line, error) {
	_, l, err := s.node(context.Background(), key)
	return l, err
}

// node returns the client of the server that has key, and the way to it.
func (s *redisStore) node(ctx context.Context, key string) (*redis.Client, *line, error) {
	if s.only != nil {
		return s.client.(*redis.Client), s.only, nil
	}
	if !s.finding.open() {
		return nil, nil, errShut
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	client, err := s.cluster.MasterForKey(ctx, key)
	s.finding.tell(err)
	if err != nil {
		return nil, nil, err
	}
	address := client.Options().Addr
	l, ok := s.nodes.Load(address)
	if !ok {
		l, _ = s.nodes.LoadOrStore(address, newLine(address, s.log, s.fetchEach))
	}
	return client, l.(*line), nil
}

// fetch is one MGET. The client's own timeouts bound it.
func (s *redisStore) fetch(keys []string, values [][]byte) error {
	return again(func() error {
		found, err := s.client.MGet(context.Background(), keys...).Result()
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
	})
}

// fetchEach is one pipeline of GETs to a server of a cluster: no MGET spans the
// slots. What has moved meanwhile the client fetches from where it is now.
func (s *redisStore) fetchEach(keys []string, values [][]byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	pipeline := s.cluster.Pipeline()
	replies := make([]*redis.StringCmd, len(keys))
	for i, key := range keys {
		replies[i] = pipeline.Get(ctx, key)
	}
	_, _ = pipeline.Exec(ctx) // each command has its own error
	for i, reply := range replies {
		text, err := reply.Result()
		switch {
		case errors.Is(err, redis.Nil), redis.HasErrorPrefix(err, "WRONGTYPE"):
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
	return s.write(ctx, key, (*line).do, func(ctx context.Context, client *redis.Client) error {
		return again(func() error { return client.Set(ctx, key, value, ttl).Err() })
	})
}

func (s *redisStore) add(ctx context.Context, key string, value []byte, ttl time.Duration) (there []byte, err error) {
	err = s.write(ctx, key, (*line).do, func(ctx context.Context, client *redis.Client) error {
		pipeline := client.Pipeline() // SET with NX and GET together would want Redis 7
		pipeline.SetNX(ctx, key, value, ttl)
		got := pipeline.Get(ctx, key)
		_, err := pipeline.Exec(ctx)
		switch {
		case errors.Is(err, redis.Nil), redis.HasErrorPrefix(err, "WRONGTYPE"):
			return fmt.Errorf("%w: %w", errUnsettled, err)
		case err != nil:
			return err
		}
		there, err = got.Bytes()
		return err
	})
	return there, err
}

// remove works on a server that is full, too. For good, it waits for the
// replicas that follow the server: one that takes over must not bring back what
// is gone here.
func (s *redisStore) remove(ctx context.Context, key string, forGood bool) error {
	if !forGood {
		return s.write(ctx, key, (*line).do, func(ctx context.Context, client *redis.Client) error { return client.Del(ctx, key).Err() })
	}
	return s.write(ctx, key, (*line).insist, func(ctx context.Context, client *redis.Client) error {
		conn := client.Conn() // WAIT is about what its own connection wrote
		defer conn.Close()
		pipeline := conn.Pipeline()
		removed := pipeline.Del(ctx, key)
		role := pipeline.Do(ctx, "ROLE")
		_, _ = pipeline.Exec(ctx) // each command has its own error
		if err := removed.Err(); err != nil {
			return err
		}
		replicas := replicasIn(role)
		if replicas == 0 {
			return nil
		}
		reached, err := conn.Wait(ctx, replicas, s.timeout/2).Result()
		if err == nil && int(reached) < replicas {
			err = fmt.Errorf("%d of %d replicas have taken it within %v", reached, replicas, s.timeout/2)
		}
		return err
	})
}

// replicasIn counts the replicas in a server's answer to ROLE. One that does
// not tell is taken to have none.
func replicasIn(role *redis.Cmd) int {
	answer, err := role.Slice()
	if err != nil || len(answer) < 3 {
		return 0
	}
	replicas, _ := answer[2].([]any)
	return len(replicas)
}

// write makes a write to the server that has key.
func (s *redisStore) write(ctx context.Context, key string, how lineUse, operation func(context.Context, *redis.Client) error) error {
	client, line, err := s.node(ctx, key)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return how(line, ctx, func() error {
		err := operation(limited, client)
		if _, moved := redis.IsMovedError(err); moved {
			s.cluster.ReloadState(ctx)
		}
		if redis.IsOOMError(err) {
			err = fmt.Errorf("%w: %w", errFull, err)
		}
		return err
	})
}

func (s *redisStore) close() error { return s.client.Close() }

// bytesOf is []byte(s) without the copy, for bytes that nobody changes.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
