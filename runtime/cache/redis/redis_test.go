package redis

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/servertest"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/cache/storetest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

func TestStore(t *testing.T) {
	for name, url := range map[string]func(testing.TB) string{"single": servertest.Redis, "sentinel": servertest.Sentinel, "cluster": servertest.Cluster} {
		t.Run(name, func(t *testing.T) {
			address := url(t)
			storetest.Run(t, storetest.Harness{
				Open: func(t *testing.T) store.Store { return open(t, address, 5*time.Second) },
				OpenDown: func(t *testing.T) store.Store {
					silent := servertest.Listen(t, func(c net.Conn) { io.Copy(io.Discard, c) })
					return open(t, "redis://"+silent.Address, storetest.DownTimeout)
				},
			})
		})
	}
}

func open(t *testing.T, url string, timeout time.Duration) store.Store {
	t.Helper()
	s, err := Open(url, store.Options{Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
