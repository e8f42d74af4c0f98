package session

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/session/memory"
	"github.com/rabbet-fn/rabbet/runtime/session/redis"
	"github.com/rabbet-fn/rabbet/runtime/session/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stores runs test with each store, each in a namespace of its own. The two Sessions
// are those of two processes.
func stores(t *testing.T, test func(t *testing.T, s, other *Sessions)) {
	t.Run("memory", func(t *testing.T) {
		m := &memory.Store{}
		test(t, newSessions(t, m, "test"), newSessions(t, m, "test"))
	})
	t.Run("redis", func(t *testing.T) {
		url, namespace := redisURL(t), "test-"+rand.Text()
		test(t, newSessions(t, openRedis(t, url), namespace), newSessions(t, openRedis(t, url), namespace))
	})
}

func redisURL(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs Redis")
	}
	url := os.Getenv("RABBET_TEST_REDIS_URL")
	if url == "" {
		t.Fatal("set RABBET_TEST_REDIS_URL, or run scripts/test, which starts one")
	}
	return url
}

// testTimeout is long because the machine may be busy.
const testTimeout = 20 * time.Second

func openRedis(t *testing.T, url string) store.Store {
	t.Helper()
	s, err := redis.Open(url, store.Options{Timeout: testTimeout})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newSessions(t *testing.T, in store.Store, namespace string, configure ...func(*Config)) *Sessions {
	t.Helper()
	cfg := Config{Namespace: namespace, Timeout: testTimeout, Log: zap.NewNop()}
	for _, c := range configure {
		c(&cfg)
	}
	s, err := New(in, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// setting is a change that sets values, given as name and JSON in turn.
func setting(values ...string) contract.SessionChange {
	c := contract.SessionChange{Set: map[string]json.RawMessage{}}
	for i := 0; i < len(values); i += 2 {
		c.Set[values[i]] = json.RawMessage(values[i+1])
	}
	return c
}

var (
	renew   = contract.SessionChange{Renew: true}
	destroy = contract.SessionChange{Destroy: true}
)

// with is c and d in one.
func with(c, d contract.SessionChange) contract.SessionChange {
	d.Renew, d.Destroy = d.Renew || c.Renew, d.Destroy || c.Destroy
	return d
}

func save(t *testing.T, s *Sessions, token string, change contract.SessionChange) (next string) {
	t.Helper()
	next, _, err := s.Save(t.Context(), token, change)
	if err != nil {
		t.Fatalf("save %+v: %v", change, err)
	}
	return next
}

// wantValues checks what the session with that token holds; "" for no session.
func wantValues(t *testing.T, s *Sessions, token, want string) {
	t.Helper()
	values, found, err := s.Load(context.Background(), token)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	if !found && want == "" && string(values) == "{}" {
		return
	}
	if !found || string(values) != want {
		t.Errorf("the session holds %s (found: %v), want %q", values, found, want)
	}
}

// recorder is a store that knows the keys of its records.
type recorder struct {
	store.Store
	mu   sync.Mutex
	keys map[string]bool
}

// recordKeys makes the Sessions use a store that knows the keys of its records.
func recordKeys(sessions ...*Sessions) *recorder {
	r := &recorder{Store: sessions[0].store, keys: map[string]bool{}}
	for _, s := range sessions {
		s.store = r
	}
	return r
}

func (r *recorder) set(key string, exists bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if exists {
		r.keys[key] = true
	} else {
		delete(r.keys, key)
	}
}

func (r *recorder) Swap(ctx context.Context, key string, old, value []byte, ttl time.Duration) (bool, error) {
	swapped, err := r.Store.Swap(ctx, key, old, value, ttl)
	if swapped {
		r.set(key, true)
	}
	return swapped, err
}

func (r *recorder) DeleteIf(ctx context.Context, key string, old []byte) (bool, error) {
	deleted, err := r.Store.DeleteIf(ctx, key, old)
	if deleted {
		r.set(key, false)
	}
	return deleted, err
}

func (r *recorder) Delete(ctx context.Context, key string) error {
	err := r.Store.Delete(ctx, key)
	if err == nil {
		r.set(key, false)
	}
	return err
}
