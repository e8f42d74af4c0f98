package inbox

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/rabbet-fn/rabbet/runtime/redisurl"
)

// redisTimeout bounds each exchange with Redis, whatever the caller's ctx allows.
const redisTimeout = 500 * time.Millisecond

// Redis is a Store on Redis. It remembers as long as Redis does: let it keep
// its data over a restart (appendonly yes) and evict nothing (noeviction).
type Redis struct{ client redis.UniversalClient }

// OpenRedis returns a Store on the Redis at url; see redisurl.Parse. It does
// not connect: while Redis is out of reach, events wait.
func OpenRedis(url string) (*Redis, error) {
	logging.Disable() // the client would write to stderr; the inbox says what matters, once
	o, err := redisurl.Parse(url)
	if err != nil {
		return nil, err
	}
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = redisTimeout, redisTimeout, redisTimeout, redisTimeout
	o.MaxRetries, o.DialerRetries = -1, 1 // whoever asks insists
	return &Redis{redis.NewUniversalClient(o)}, nil
}

// Close frees the connections.
func (r *Redis) Close() error { return r.client.Close() }

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

// Claim is Store's.
func (r *Redis) Claim(ctx context.Context, key, token string, lease time.Duration) (Claim, error) {
	reply, err := claimScript.Run(ctx, r.client, []string{key}, valueRunning+token, lease.Milliseconds()).Slice()
	if err != nil {
		return Claim{}, err
	}
	if len(reply) == 2 {
		state, isText := reply[0].(string)
		left, isNumber := reply[1].(int64)
		if isText && isNumber {
			return Claim{State: State(state), Left: time.Duration(left) * time.Millisecond}, nil
		}
	}
	return Claim{}, fmt.Errorf("redis answered %.100v to a claim", reply)
}

// Complete is Store's.
func (r *Redis) Complete(ctx context.Context, key string, keep time.Duration) error {
	return r.client.Set(ctx, key, valueDone, keep).Err()
}

// Release is Store's.
func (r *Redis) Release(ctx context.Context, key, token string) error {
	return releaseScript.Run(ctx, r.client, []string{key}, valueRunning+token).Err()
}

// Forgetful says why this Redis may forget too early; "" if it does not, or
// does not tell.
func (r *Redis) Forgetful(ctx context.Context) string {
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
