package inbox

import (
	"context"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func TestMain(m *testing.M) {
	if os.Getenv("INBOX_TEST_WORKER") != "" {
		hang()
		return
	}
	goleak.VerifyTestMain(m)
}

// stores opens each make of Store.
var stores = map[string]func(*testing.T) Store{
	"memory": func(*testing.T) Store { return &Memory{} },
	"redis":  func(t *testing.T) Store { return openRedis(t, service(t, "RABBET_TEST_REDIS_URL")) },
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

func openRedis(t *testing.T, url string) *Redis {
	t.Helper()
	r, err := OpenRedis(url)
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

func TestStore(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			s, ctx := open(t), within(t)
			key := "test:" + contract.NewID()
			claim := func(token string, want State) time.Duration {
				t.Helper()
				got, err := s.Claim(ctx, key, token, time.Hour)
				if err != nil || got.State != want {
					t.Fatalf("claim of %s: got %+v, %v; want %s", token, got, err, want)
				}
				return got.Left
			}
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			claim("a", Mine)
			claim("a", Mine) // once more: a renewal, or an answer that got lost
			if left := claim("b", Elsewhere); left <= 59*time.Minute || left > time.Hour {
				t.Errorf("got a lease of %v, want an hour", left)
			}
			must(s.Release(ctx, key, "b"))
			claim("b", Elsewhere)
			must(s.Release(ctx, key, "a"))
			must(s.Release(ctx, key, "a"))
			claim("b", Mine)
			must(s.Complete(ctx, key, time.Hour))
			must(s.Complete(ctx, key, time.Hour))
			claim("a", Done)
			claim("b", Done)
			must(s.Release(ctx, key, "b"))
			claim("b", Done)
		})
	}
}

func TestStoreForgetsInTime(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			s, ctx := open(t), within(t)
			leased, done := "test:"+contract.NewID(), "test:"+contract.NewID()
			if _, err := s.Claim(ctx, leased, "a", 50*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			if err := s.Complete(ctx, done, 50*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			for _, key := range []string{leased, done} {
				for {
					claim, err := s.Claim(ctx, key, "b", time.Hour)
					if err != nil {
						t.Fatalf("claim: %v", err)
					}
					if claim.State == Mine {
						break
					}
					time.Sleep(10 * time.Millisecond) // what it waits for is that time passes
				}
			}
		})
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := &Memory{}
	for range maxDone + 10 {
		if err := m.Complete(t.Context(), contract.NewID(), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if len(m.keys) != maxDone || len(m.done) != maxDone {
		t.Errorf("it knows %d keys and lists %d, want %d", len(m.keys), len(m.done), maxDone)
	}
}
