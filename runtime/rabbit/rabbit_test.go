package rabbit

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func TestMain(m *testing.M) {
	runAsProcess()
	goleak.VerifyTestMain(withNode{m})
}

// brokerURL is the broker that the tests run against.
func brokerURL(t testing.TB) string { return fromEnvironment(t, "RABBET_TEST_AMQP_URL") }

func fromEnvironment(t testing.TB, name string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs RabbitMQ")
	}
	v := os.Getenv(name)
	if v == "" {
		t.Fatalf("set %s, or run scripts/test, which starts one", name)
	}
	return v
}

// openBroker opens a broker in a namespace of the test's own; all that the namespace
// holds is removed when the test ends.
func openBroker(t testing.TB, configure ...func(*Config)) *Broker {
	t.Helper()
	cfg := Config{URL: brokerURL(t), Namespace: "test-" + contract.NewID(), Grace: 5 * time.Second}
	for _, c := range configure {
		c(&cfg)
	}
	removeAfter(t, cfg.Namespace)
	b, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := b.Ready(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	return b
}

// serve hosts fns until the test ends or stop is called; it returns once they
// are in the directory.
func serve(t testing.TB, b *Broker, fns ...contract.Function) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, fns) }()
	var err error
	stopped := false
	stop = func() error {
		if !stopped {
			cancel()
			stopped, err = true, <-done
		}
		return err
	}
	t.Cleanup(func() { _ = stop() })
	for _, fn := range fns {
		awaitWorkers(t, b, fn.Name, true)
	}
	return stop
}

// awaitWorkers waits until the directory knows workers of the function, or none.
func awaitWorkers(t testing.TB, b *Broker, fn string, want bool) {
	t.Helper()
	until(t, fmt.Sprintf("workers of %s: %v", fn, want), func(ctx context.Context) bool {
		changed := b.Directory().Changed()
		if live, _ := b.Directory().Find(fn); len(live.Workers) > 0 == want {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
		return false
	})
}

// pollInterval is how often something is asked that cannot be waited for.
const pollInterval = 100 * time.Millisecond

// until calls done again and again until it holds; done does the waiting.
func until(t testing.TB, what string, done func(ctx context.Context) bool) {
	t.Helper()
	ctx := within(t, 20*time.Second)
	for !done(ctx) {
		if ctx.Err() != nil {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("waited in vain: %s", what)
		panic("unreachable")
	}
}

// onEvent is an event function that is told of key.
func onEvent(name, key string, handle func(ctx context.Context, e *contract.Event) error) contract.Function {
	return contract.Function{
		Descriptor: contract.Descriptor{
			Name: name, Kind: contract.KindEvent, Keys: []string{key}, Timeout: 10 * time.Second, Concurrency: 4, Version: "1",
			Retry: contract.Retry{First: 100 * time.Millisecond, Max: 5},
		},
		Handle: func(ctx context.Context, e *contract.Event) ([]byte, error) { return nil, handle(ctx, e) },
	}
}

// foreignChannel is a channel of a client that knows nothing of Rabbet.
func foreignChannel(t testing.TB) *amqp.Channel {
	t.Helper()
	return channelOn(t, brokerURL(t))
}

// channelOn is a channel of nobody's on the broker there.
func channelOn(t testing.TB, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// deadLetter waits for the next dead letter of the function.
func deadLetter(t testing.TB, b *Broker, fn string) amqp.Delivery {
	t.Helper()
	deliveries, err := foreignChannel(t).Consume(b.names.DeadQueue(fn), "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return receive(t, "a dead letter of "+fn, deliveries)
}

// management calls the broker's management API.
func management(t testing.TB, method, path string, into any) {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t, 20*time.Second), method, fromEnvironment(t, "RABBET_TEST_AMQP_MANAGEMENT_URL")+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 && res.StatusCode != http.StatusNotFound {
		t.Fatalf("%s %s: %s", method, path, res.Status)
	}
	if into != nil {
		if err := json.NewDecoder(res.Body).Decode(into); err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
	}
}

// closeConnections closes the connections of the namespace through the
// management API, and returns how many there were.
func closeConnections(t testing.TB, namespace string) int {
	t.Helper()
	var connections []struct {
		Name       string `json:"name"`
		Properties struct {
			Name string `json:"connection_name"`
		} `json:"client_properties"`
	}
	management(t, http.MethodGet, "/api/connections", &connections)
	n := 0
	for _, c := range connections {
		if strings.HasPrefix(c.Properties.Name, namespace+" ") {
			management(t, http.MethodDelete, "/api/connections/"+url.PathEscape(c.Name), nil)
			n++
		}
	}
	return n
}

// removeAfter removes what the namespace holds when the test ends.
func removeAfter(t testing.TB, namespace string) {
	t.Cleanup(func() {
		for _, kind := range []string{"queues", "exchanges"} {
			var list struct {
				Items []struct {
					Name  string `json:"name"`
					Vhost string `json:"vhost"`
					Own   bool   `json:"exclusive"` // it goes with its connection
				} `json:"items"`
			}
			management(t, http.MethodGet, "/api/"+kind+"?page=1&page_size=500&use_regex=true&name="+url.QueryEscape("^"+namespace), &list)
			for _, item := range list.Items {
				if item.Own {
					continue
				}
				management(t, http.MethodDelete, fmt.Sprintf("/api/%s/%s/%s", kind, url.PathEscape(item.Vhost), url.PathEscape(item.Name)), nil)
			}
		}
	})
}
