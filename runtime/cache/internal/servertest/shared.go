//go:build linux

package servertest

import (
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Main is the TestMain of a package that uses Shared. It also fails if a
// goroutine is left behind.
func Main(m *testing.M) { goleak.VerifyTestMain(withShared{m}) }

type withShared struct{ *testing.M }

func (m withShared) Run() int {
	defer stopShared()
	return m.M.Run()
}

// shared are the servers that Shared has started.
var shared struct {
	sync.Mutex
	urls    map[string]string
	cleanup []func()
}

// Shared returns the URL of servers that all tests of a package use, which only
// change keys of their own. The first call for a name starts them.
func Shared(t testing.TB, name string, start func(testing.TB) string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs servers")
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.urls == nil {
		shared.urls = map[string]string{}
	}
	if shared.urls[name] == "" {
		shared.urls[name] = start(sharedTB{t})
	}
	return shared.urls[name]
}

// sharedTB is for servers that outlive the test that starts them.
type sharedTB struct{ testing.TB }

func (sharedTB) Cleanup(fn func()) { shared.cleanup = append(shared.cleanup, fn) }
func (sharedTB) TempDir() string {
	dir, err := os.MkdirTemp("", "rabbet-cache-test")
	if err != nil {
		panic(err)
	}
	shared.cleanup = append(shared.cleanup, func() { os.RemoveAll(dir) })
	return dir
}
func (sharedTB) Failed() bool { return false }

func stopShared() {
	for _, stop := range slices.Backward(shared.cleanup) {
		stop()
	}
}

// Redis returns the URL of the Redis that the environment names for tests.
func Redis(t testing.TB) string { return service(t, "RABBET_TEST_REDIS_URL") }

// Memcached returns the URL of the Memcached that the environment names for tests.
func Memcached(t testing.TB) string { return service(t, "RABBET_TEST_MEMCACHED_URL") }

// Sentinel returns the URL of a shared Redis behind a sentinel.
func Sentinel(t testing.TB) string {
	return Shared(t, "sentinel", func(t testing.TB) string { url, _, _ := StartSentinel(t); return url })
}

// Cluster returns the URL of a shared Redis cluster.
func Cluster(t testing.TB) string {
	return Shared(t, "cluster", func(t testing.TB) string { url, _ := StartCluster(t); return url })
}

// ThreeMemcached returns the URL of three shared Memcached servers.
func ThreeMemcached(t testing.TB) string {
	return Shared(t, "memcached", func(t testing.TB) string {
		url := "memcached://" + StartMemcached(t).Address
		return url + "," + StartMemcached(t).Address + "," + StartMemcached(t).Address
	})
}

func service(t testing.TB, variable string) string {
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

// Eventually waits until ok returns true, for at most a minute.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
		time.Sleep(time.Millisecond)
	}
}
