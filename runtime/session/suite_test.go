package session

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stores runs test on every make of store, each in a namespace of its own. The
// two Sessions are those of two processes.
func stores(t *testing.T, test func(t *testing.T, s, other *Sessions)) {
	t.Run("memory", func(t *testing.T) {
		s := open(t, "memory://", "test")
		test(t, s, s)
	})
	t.Run("redis", func(t *testing.T) {
		url, namespace := redisURL(t), "test-"+rand.Text()
		test(t, open(t, url, namespace), open(t, url, namespace))
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

func open(t *testing.T, url, namespace string, configure ...func(*Config)) *Sessions {
	t.Helper()
	// Two busy cores may be slower than a store should be.
	cfg := Config{Namespace: namespace, Timeout: 20 * time.Second, Log: zap.NewNop()}
	for _, c := range configure {
		c(&cfg)
	}
	s, err := Open(url, cfg)
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

// keysOf are the keys of all records of s.
func keysOf(t *testing.T, s *Sessions) []string {
	t.Helper()
	switch r := s.records.(type) {
	case *memoryRecords:
		return slices.Collect(maps.Keys(r.items))
	case *redisRecords:
		keys, err := r.client.Keys(t.Context(), r.prefix+"*").Result()
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	t.Fatalf("keys of a %T", s.records)
	return nil
}
