package app_test

import (
	"strings"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/app"
)

// No other process could invalidate a cache in the memory of this one.
func TestOwnCacheIsRefused(t *testing.T) {
	for _, url := range []string{"memory://", "memory://?size=8"} {
		env := []string{"RABBET_BROKER_URL=amqp://127.0.0.1:1/", "RABBET_CACHE_URL=" + url, "RABBET_DATABASE_URL=sqlite://" + t.TempDir() + "/db"}
		for _, process := range []string{"ingress", "worker"} {
			if _, notes, code := command(t, env, process); code != app.ExitUsage || !strings.Contains(notes, "use redis:// or memcached://") {
				t.Errorf("rabbet %s with %s: got exit code %d, %q", process, url, code, notes)
			}
		}
	}
}
