package session

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rabbet-fn/rabbet/runtime/redisurl"
)

// onRedis returns a session on Redis, a client of this Redis, and the only key of the
// session's namespace.
func onRedis(t *testing.T, configure ...func(*Config)) (s *Sessions, client redis.UniversalClient, token, key string) {
	t.Helper()
	options, err := redisurl.Parse(redisURL(t))
	if err != nil {
		t.Fatal(err)
	}
	client = redis.NewUniversalClient(options)
	t.Cleanup(func() { client.Close() })
	namespace := "test-" + rand.Text()
	s = newSessions(t, openRedis(t, redisURL(t)), namespace, configure...)
	token = save(t, s, "", setting("user", `"ada"`))
	keys, err := client.Keys(t.Context(), namespace+":*").Result()
	if err != nil || len(keys) != 1 || !strings.HasPrefix(keys[0], namespace+":session:") {
		t.Fatalf("the keys are %v, %v; want one below %s:session:", keys, err, namespace)
	}
	return s, client, token, keys[0]
}

func TestTheStoreDoesNotKnowTheToken(t *testing.T) {
	_, client, token, key := onRedis(t)
	if len(token) < 43 { // 256 bits in base64
		t.Errorf("the token %q is short", token)
	}
	value, err := client.Get(t.Context(), key).Result()
	if err != nil || strings.Contains(key, token) || strings.Contains(value, token) {
		t.Errorf("stored under %s: %s, %v; want the token in neither", key, value, err)
	}
}

func TestRedisForgetsWhatIsNotUsed(t *testing.T) {
	const idle, lifetime = 30 * time.Minute, 40 * time.Minute
	s, client, token, key := onRedis(t, func(c *Config) { c.Idle, c.Lifetime = idle, lifetime })
	wantTTL := func(what string, want time.Duration) {
		t.Helper()
		got, err := client.PTTL(t.Context(), key).Result()
		if err != nil || got > want || got < want-time.Minute {
			t.Errorf("%s: Redis keeps it for %v, %v; want %v", what, got, err, want)
		}
	}
	shorten := func() {
		t.Helper()
		if err := client.PExpire(t.Context(), key, time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
	}
	wantTTL("begun", idle)
	shorten()
	wantValues(t, s, token, `{"user":"ada"}`)
	wantTTL("read", idle)
	shorten()
	save(t, s, token, setting("user", `"eve"`))
	wantTTL("changed", idle)

	rewrite := func(deadline time.Time) {
		t.Helper()
		value := fmt.Sprintf(`{"deadline":%q,"values":{"user":"ada"}}`, deadline.UTC().Format(time.RFC3339Nano))
		if err := client.Set(t.Context(), key, value, idle).Err(); err != nil {
			t.Fatal(err)
		}
	}
	rewrite(time.Now().Add(10 * time.Minute))
	save(t, s, token, setting("user", `"eve"`))
	wantTTL("changed near its end", 10*time.Minute)
	rewrite(time.Now().Add(-time.Second))
	wantValues(t, s, token, "")
	if next := save(t, s, token, setting("user", `"eve"`)); next != token {
		t.Errorf("a change to a session past its end gave it the token %q", next)
	}
	wantValues(t, s, token, "")
}

func TestRecordThatIsNoSession(t *testing.T) {
	core, lines := observer.New(zap.ErrorLevel)
	s, client, token, key := onRedis(t, func(c *Config) { c.Log = zap.New(core) })
	if err := client.Set(t.Context(), key, "\x00rubbish", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	wantValues(t, s, token, "")
	if lines.Len() != 1 {
		t.Errorf("%d lines in the log, want one", lines.Len())
	}
}

func redisAddress(t *testing.T) string {
	t.Helper()
	_, rest, _ := strings.Cut(redisURL(t), "://")
	address, _, _ := strings.Cut(rest, "/")
	return address[strings.LastIndex(address, "@")+1:]
}

func TestRedisGoesAndComesBack(t *testing.T) {
	p := newProxy(t, redisAddress(t), false)
	s := newSessions(t, openRedis(t, p.url()), "test-"+rand.Text())
	token := save(t, s, "", setting("user", `"ada"`))
	p.cut()
	for range 3 {
		if values, found, err := s.Load(t.Context(), token); err == nil {
			t.Errorf("load without Redis: got %s, %v; want an error, not a client that is logged out", values, found)
		}
		if _, _, err := s.Save(t.Context(), token, renew); err == nil {
			t.Error("save without Redis: got no error")
		}
	}
	if _, found, err := s.Load(t.Context(), ""); found || err != nil {
		t.Errorf("a client without a session: got %v, %v; want no need of Redis", found, err)
	}
	p.mend()
	wantValues(t, s, token, `{"user":"ada"}`)
}

func TestRedisThatDoesNotAnswer(t *testing.T) {
	p := newProxy(t, redisAddress(t), true)
	s := newSessions(t, openRedis(t, p.url()), "test", func(c *Config) { c.Timeout = 100 * time.Millisecond })
	began := time.Now()
	if _, _, err := s.Load(t.Context(), "token"); err == nil {
		t.Error("got no error")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v, want about 100 ms", took)
	}
}
