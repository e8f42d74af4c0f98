package inbox

import (
	"context"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rabbet-fn/rabbet/runtime/inbox/memory"
	"github.com/rabbet-fn/rabbet/runtime/inbox/redis"
	"github.com/rabbet-fn/rabbet/runtime/inbox/store"
)

func TestMain(m *testing.M) {
	if os.Getenv("INBOX_TEST_WORKER") != "" {
		hang()
		return
	}
	goleak.VerifyTestMain(m)
}

// stores opens each kind of store.
var stores = map[string]func(*testing.T) store.Store{
	"memory": func(*testing.T) store.Store { return &memory.Store{} },
	"redis":  func(t *testing.T) store.Store { return openRedis(t, service(t, "RABBET_TEST_REDIS_URL")) },
}

func service(t *testing.T, variable string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a service")
	}
	url := os.Getenv(variable)
	if url == "" {
		t.Fatalf("set %s, or run scripts/test, which starts one", variable)
	}
	return url
}

func openRedis(t *testing.T, url string) store.Store {
	t.Helper()
	r, err := redis.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// limit is how long a test waits for an event before it fails.
const limit = time.Minute

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}
