package redis

import (
	"os"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/inbox/store"
	"github.com/rabbet-fn/rabbet/runtime/inbox/storetest"
)

func TestStore(t *testing.T) {
	if testing.Short() {
		t.Skip("needs Redis")
	}
	url := os.Getenv("RABBET_TEST_REDIS_URL")
	if url == "" {
		t.Fatal("set RABBET_TEST_REDIS_URL, or run scripts/test, which starts one")
	}
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := Open(url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	})
}
