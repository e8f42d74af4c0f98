// Package redis is a store of the inbox on Redis, for any number of processes.
package redis

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/rabbet-fn/rabbet/runtime/inbox/store"
	"github.com/rabbet-fn/rabbet/runtime/redisurl"
)

// timeout is how long one operation may take, even if its ctx allows more.
const timeout = 500 * time.Millisecond

// redisStore loses keys when Redis does. Redis should persist them (appendonly yes)
// and evict none (noeviction): see DataLossRisk.
type redisStore struct{ client redis.UniversalClient }

// Open opens a store on the Redis at url; see redisurl.Parse. It does not connect.
func Open(url string) (store.Store, error) {
	logging.Disable() // the client would write to stderr; the inbox logs an outage once
	o, err := redisurl.Parse(url)
	if err != nil {
		return nil, err
	}
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = timeout, timeout, timeout, timeout
	o.MaxRetries, o.DialerRetries = -1, 1 // the inbox repeats operations
	return &redisStore{redis.NewUniversalClient(o)}, nil
}

// A value is "done", or "running " and the token of the run.
const (
	valueDone    = "done"
	valueRunning = "running "
)

var (
	claimScript = redis.NewScript(`
		local value = redis.call('GET', KEYS[1])
		if not value or value == ARGV[1] then
			redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
			return {'mine', 0}
		elseif value == 'done' then
			return {'done', 0}
		end
		return {'elsewhere', redis.call('PTTL', KEYS[1])}`)
	releaseScript = redis.NewScript(`
		if redis.call('GET', KEYS[1]) == ARGV[1] then
			redis.call('DEL', KEYS[1])
		end
		return 0`)
)

func (r *redisStore) Claim(ctx context.Context, key, token string, lease time.Duration) (store.Claim, error) {
	reply, err := claimScript.Run(ctx, r.client, []string{key}, valueRunning+token, lease.Milliseconds()).Slice()
	if err != nil {
		return store.Claim{}, err
	}
	if len(reply) == 2 {
		state, isText := reply[0].(string)
		left, isNumber := reply[1].(int64)
		if isText && isNumber {
			return store.Claim{State: store.State(state), Left: time.Duration(left) * time.Millisecond}, nil
		}
	}
	return store.Claim{}, fmt.Errorf("redis answered %.100v to a claim", reply)
}

func (r *redisStore) Complete(ctx context.Context, key string, keep time.Duration) error {
	return r.client.Set(ctx, key, valueDone, keep).Err()
}

func (r *redisStore) Release(ctx context.Context, key, token string) error {
	return releaseScript.Run(ctx, r.client, []string{key}, valueRunning+token).Err()
}

// DataLossRisk checks the settings of Redis.
func (r *redisStore) DataLossRisk(ctx context.Context) string {
	info, err := r.client.Info(ctx, "memory", "persistence").Result()
	if err != nil {
		return ""
	}
	settings := map[string]string{}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		settings[name] = value
	}
	var why []string
	if policy := settings["maxmemory_policy"]; policy != "noeviction" && settings["maxmemory"] != "0" {
		why = append(why, "it evicts keys when memory is short (maxmemory-policy "+policy+")")
	}
	if settings["aof_enabled"] == "0" {
		why = append(why, "a restart loses keys (appendonly no)")
	}
	return strings.Join(why, "; ")
}

func (r *redisStore) Close() error { return r.client.Close() }
