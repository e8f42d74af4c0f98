package rabbit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// deleteQueue deletes a queue under those who use it.
func deleteQueue(t testing.TB, name string) {
	t.Helper()
	management(t, http.MethodDelete, "/api/queues/%2F/"+url.PathEscape(name), nil)
}

// A run that takes long does not keep its function from being consumed again
// after its queue was deleted.
func TestDeletedQueueComesBackBesideALongRun(t *testing.T) {
	b := openBroker(t)
	a := newAccount("deleted queue")
	release := make(chan struct{})
	begun := make(chan struct{}, 1)
	fn := onEvent("both", "both.ways", func(_ context.Context, e *contract.Event) error {
		if e.ID == "long" {
			begun <- struct{}{}
			<-release
		}
		a.processed(e.ID)
		return nil
	})
	serve(t, b, fn)
	defer close(release)
	if err := b.Publish(t.Context(), contract.Event{Key: "both.ways", ID: "long"}); err != nil {
		t.Fatal(err)
	}
	receive(t, "the long run", begun)
	deleteQueue(t, b.names.EventQueue("both"))
	until(t, "the queue is back", func(ctx context.Context) bool {
		return b.Publish(ctx, contract.Event{Key: "both.ways", ID: "next"}) == nil
	})
	a.await(t, "an event beside the long run", func() bool { return a.runs["next"] == 1 })
}

func TestDeletedRequestQueueComesBack(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		removeAfter(t, cfg.Namespace)
		caller := startCaller(t, cfg)
		release, begun := make(chan struct{}), make(chan struct{}, 1)
		startWorker(t, cfg, []*Broker{caller}, function("echo", func(_ context.Context, e *contract.Event) ([]byte, error) {
			if string(e.Body) == `"long"` {
				begun <- struct{}{}
				<-release
			}
			return e.Body, nil
		}))
		long := make(chan error, 1)
		go func() {
			_, err := caller.Call(context.WithoutCancel(t.Context()), contract.Call{Key: "echo", Body: []byte(`"long"`)})
			long <- err
		}()
		receive(t, "the long call", begun)
		deleteQueue(t, cfg.Namespace+".request.echo")
		until(t, "calls are answered again", func(ctx context.Context) bool {
			_, err := caller.Call(ctx, contract.Call{Key: "echo", Body: []byte(`"short"`)})
			if err != nil && !errors.Is(err, contract.ErrUnroutable) {
				t.Errorf("a call while there was no queue: got %v, want unroutable", err)
			}
			return err == nil
		})
		close(release)
		if err := receive(t, "the long call's reply", long); err != nil {
			t.Errorf("the call that ran when its queue was deleted: %v", err)
		}
	})
}

// What carries failures on is declared again when somebody has deleted it.
func TestDeletedDelayAndDeadQueuesComeBack(t *testing.T) {
	b := openBroker(t)
	a := newAccount("deleted delay")
	fn := onEvent("twice", "twice.over", func(_ context.Context, e *contract.Event) error {
		if e.Attempt == 1 {
			return errors.New("not yet")
		}
		if e.ID == "bad" {
			return faas.Permanent("never")
		}
		a.processed(e.ID)
		return nil
	})
	serve(t, b, fn)
	for _, id := range []string{"before", "after"} {
		publishUntilAccepted(t.Context(), t, b, a, contract.Event{Key: "twice.over", ID: id})
		a.awaitSettled(t)
		deleteQueue(t, b.names.Delay("100"))
		deleteQueue(t, b.names.DeadQueue("twice"))
	}
	if err := b.Publish(t.Context(), contract.Event{Key: "twice.over", ID: "bad"}); err != nil {
		t.Fatal(err)
	}
	until(t, "the dead letter", func(context.Context) bool {
		time.Sleep(pollInterval)
		conn, err := amqp.Dial(brokerURL(t))
		if err != nil {
			return false
		}
		defer conn.Close()
		ch, err := conn.Channel()
		if err != nil {
			return false
		}
		d, ok, err := ch.Get(b.names.DeadQueue("twice"), true)
		return err == nil && ok && d.MessageId == "bad"
	})
	a.balance(t, 0, 0)
}

// An exchange that is deleted takes its bindings along: all is as before once
// the process has noticed.
func TestDeletedExchangeComesBack(t *testing.T) {
	b := openBroker(t)
	a := newAccount("deleted exchange")
	serve(t, b, counted(a, "ex.change", 1))
	management(t, http.MethodDelete, "/api/exchanges/%2F/"+url.PathEscape(b.names.Events()), nil)
	switch err := b.Publish(within(t, 10*time.Second), contract.Event{Key: "ex.change", ID: "noticed"}); {
	case err == nil: // it came back while the publish waited for the route
		a.accept("noticed")
	case !errors.Is(err, contract.ErrUnroutable):
		t.Errorf("got %v, want unroutable", err)
	}
	until(t, "a publish gets through", func(ctx context.Context) bool {
		if err := b.Publish(ctx, contract.Event{Key: "ex.change", ID: "again"}); err != nil {
			time.Sleep(pollInterval)
			return false
		}
		a.accept("again")
		return true
	})
	a.awaitSettled(t)
}

// A process that hears nothing any more, not even itself, listens anew, and
// declares again what it may have been asked to meanwhile.
func TestDeletedExchangesComeBack(t *testing.T) {
	b := openBroker(t, func(c *Config) { c.broadcastCheck = 100 * time.Millisecond })
	a := newAccount("deleted exchanges")
	serve(t, b, counted(a, "all.gone", 1), function("echo", echo))
	for _, exchange := range []string{b.names.System(), b.names.Events(), b.names.Requests(), b.names.Dead()} {
		management(t, http.MethodDelete, "/api/exchanges/%2F/"+url.PathEscape(exchange), nil)
	}
	heard := make(chan string, 100)
	defer b.Listen("test", func(body []byte) { heard <- string(body) })()
	until(t, "a broadcast is heard", func(ctx context.Context) bool {
		_ = b.Broadcast(ctx, "test", []byte("here"))
		select {
		case <-heard:
			return true
		case <-time.After(pollInterval):
			return false
		}
	})
	until(t, "a publish gets through", func(ctx context.Context) bool {
		time.Sleep(pollInterval)
		return b.Publish(ctx, contract.Event{Key: "all.gone", ID: "again"}) == nil
	})
	a.await(t, "the event", func() bool { return a.runs["again"] == 1 })
	until(t, "a call is answered", func(ctx context.Context) bool {
		time.Sleep(pollInterval)
		_, err := b.Call(ctx, contract.Call{Key: "echo", Deadline: time.Now().Add(time.Second)})
		return err == nil
	})
}

// A foreign exchange that a function listens on, and that somebody deletes, comes
// back with its bindings. One of a type that has no patterns is told of, until
// it is mended.
func TestDeletedForeignExchangeComesBack(t *testing.T) {
	b := openBroker(t, func(c *Config) { c.redeclareInterval = 200 * time.Millisecond })
	source := b.cfg.Namespace + "-shop" // goes with the namespace
	ran := make(chan string, 10)
	fn := onEvent("listener", "order.#", func(_ context.Context, e *contract.Event) error { ran <- e.ID; return nil })
	fn.Exchange = source
	serve(t, b, fn)
	routed := func(id string) {
		t.Helper()
		until(t, id, func(ctx context.Context) bool {
			time.Sleep(pollInterval)
			err := b.Publish(ctx, contract.Event{Exchange: source, Key: "order.made", ID: id})
			if err != nil && !errors.Is(err, contract.ErrUnroutable) {
				t.Errorf("%s: got %v, want unroutable", id, err)
			}
			return err == nil
		})
		if got := receive(t, "a run", ran); got != id {
			t.Errorf("got a run of %q, want %q", got, id)
		}
	}
	replace := func(kind string) {
		t.Helper()
		until(t, "the exchange is "+kind, func(context.Context) bool { // the worker may be faster
			ch := foreignChannel(t)
			return ch.ExchangeDelete(source, false, false) == nil && ch.ExchangeDeclare(source, kind, true, false, false, false, nil) == nil
		})
	}
	routed("before")
	if err := foreignChannel(t).ExchangeDelete(source, false, false); err != nil {
		t.Fatal(err)
	}
	routed("deleted")

	replace(amqp.ExchangeDirect)
	until(t, "the process says what is wrong", func(context.Context) bool {
		time.Sleep(pollInterval)
		err := b.Health()
		return err != nil && strings.Contains(err.Error(), source) && strings.Contains(err.Error(), "direct") && strings.Contains(err.Error(), "order.#")
	})
	replace(amqp.ExchangeFanout)
	routed("of another type")
	until(t, "health", func(context.Context) bool { time.Sleep(pollInterval); return b.Health() == nil })
}

// user is a broker user of the test's own, with full permissions at first.
type user struct{ name, password string }

func newUser(t testing.TB) user {
	t.Helper()
	u := user{"test-" + contract.NewID()[:10], "first"}
	u.save(t)
	u.permit(t, ".*", ".*", ".*")
	t.Cleanup(func() { management(t, http.MethodDelete, "/api/users/"+u.name, nil) })
	return u
}

func (u user) save(t testing.TB) {
	t.Helper()
	put(t, "/api/users/"+u.name, map[string]string{"password": u.password, "tags": ""})
}

func (u user) permit(t testing.TB, configure, write, read string) {
	t.Helper()
	put(t, "/api/permissions/%2F/"+u.name, map[string]string{"configure": configure, "write": write, "read": read})
}

// at is rawURL with the user in it.
func (u user) at(t testing.TB, rawURL string) string {
	t.Helper()
	parsed, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	parsed.User = url.UserPassword(u.name, u.password)
	return parsed.String()
}

// put calls the management API.
func put(t testing.TB, path string, body any) {
	t.Helper()
	content, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(within(t, 20*time.Second), http.MethodPut, fromEnvironment(t, "RABBET_TEST_AMQP_MANAGEMENT_URL")+path, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode >= 300 {
		t.Fatalf("PUT %s: %s", path, res.Status)
	}
}

func TestWithdrawnPermissions(t *testing.T) {
	p, cfg := networkConfig(t)
	u := newUser(t)
	cfg.URL = u.at(t, cfg.URL)
	a := newAccount("withdrawn permissions")
	b := startCaller(t, cfg)
	startWorker(t, cfg, []*Broker{b}, counted(a, "may.be", 1))
	publishUntilAccepted(t.Context(), t, b, a, contract.Event{Key: "may.be", ID: "before"})
	a.awaitSettled(t)

	u.permit(t, ".*", fmt.Sprintf(`^(?!%s\.events$)`, cfg.Namespace), ".*")
	p.reset() // the broker remembers for a channel what was allowed
	until(t, "publishing is refused", func(ctx context.Context) bool {
		err := b.Publish(ctx, contract.Event{Key: "may.be", ID: "refused"})
		if errors.Is(err, contract.ErrUnconfirmed) || errors.Is(err, contract.ErrUnavailable) {
			return false
		}
		if !errors.Is(err, contract.ErrRefused) || executedOf(err) != contract.ExecutedNo || !strings.Contains(err.Error(), "may not publish") {
			t.Fatalf("got %v (executed %q), want refused and why", err, executedOf(err))
		}
		return true
	})

	u.permit(t, "^$", "^$", "^$")
	p.reset()
	until(t, "the process says that it is unhealthy", func(context.Context) bool {
		time.Sleep(pollInterval)
		err := b.Health()
		return err != nil && strings.Contains(err.Error(), "no permission") && strings.Contains(err.Error(), "set_permissions")
	})
	if err := b.Publish(within(t, 300*time.Millisecond), contract.Event{Key: "may.be", ID: "unavailable"}); !errors.Is(err, contract.ErrUnavailable) || !strings.Contains(err.Error(), "no permission") {
		t.Errorf("without any permission: got %v, want unavailable and why", err)
	}

	u.permit(t, ".*", ".*", ".*")
	publishUntilAccepted(t.Context(), t, b, a, contract.Event{Key: "may.be", ID: "after"})
	a.awaitSettled(t)
	until(t, "health", func(context.Context) bool { time.Sleep(pollInterval); return b.Health() == nil })
	a.balance(t, 0, 0)
}

// Credentials that were rotated are used with the next connection.
func TestRotatedCredentials(t *testing.T) {
	p, cfg := networkConfig(t)
	u := newUser(t)
	var now atomic.Pointer[string]
	set := func() { s := u.at(t, cfg.URL); now.Store(&s) }
	set()
	cfg.URLFrom = func() (string, error) { return *now.Load(), nil }
	a := newAccount("rotated credentials")
	b := startCaller(t, cfg)
	startWorker(t, cfg, []*Broker{b}, counted(a, "key.turned", 1))
	u.password = "second"
	u.save(t)
	publishUntilAccepted(t.Context(), t, b, a, contract.Event{Key: "key.turned", ID: "over the old connection"})
	p.reset()
	until(t, "the old password is refused", func(context.Context) bool {
		time.Sleep(pollInterval)
		err := b.Health()
		return err != nil && strings.Contains(err.Error(), "does not let user")
	})
	set()
	publishUntilAccepted(t.Context(), t, b, a, contract.Event{Key: "key.turned", ID: "over a new one"})
	a.awaitSettled(t)
	a.balance(t, 1, 0)
}

// A run that is over the broker's consumer timeout loses its delivery, which
// comes again; everything else goes on.
func TestConsumerTimeout(t *testing.T) {
	n := ownNode(t)
	timeout := func(consumer, tick time.Duration) {
		ctl(t, n, "eval", fmt.Sprintf("application:set_env(rabbit, consumer_timeout, %d), application:set_env(rabbit, channel_tick_interval, %d).",
			consumer.Milliseconds(), tick.Milliseconds()))
	}
	timeout(time.Second, 200*time.Millisecond)
	t.Cleanup(func() { timeout(30*time.Minute, time.Minute) })
	cfg := faultConfig(t, n)
	a := newAccount("consumer timeout")
	b := startCaller(t, cfg)
	begun, release := make(chan bool, 4), make(chan struct{})
	slow := onEvent("slow", "slow.on", func(_ context.Context, e *contract.Event) error {
		begun <- e.Redelivered
		if !e.Redelivered {
			<-release
		}
		a.processed(e.ID)
		return nil
	})
	slow.Concurrency = 2
	_, stop := startWorker(t, cfg, []*Broker{b}, slow, counted(a, "quick.one", 1))
	publishUntilAccepted(t.Context(), t, b, a, contract.Event{Key: "slow.on", ID: "slow"})
	if receive(t, "the slow run", begun) {
		t.Error("the first run says that it is a redelivery")
	}
	if !receive(t, "the second run, after the timeout", begun) {
		t.Error("the second run does not say that it is a redelivery")
	}
	for i := range 20 {
		publishUntilAccepted(t.Context(), t, b, a, contract.Event{Key: "quick.one", ID: fmt.Sprint(i)})
	}
	a.awaitSettled(t)
	close(release)
	stop()
	if got := queueLength(t, n.URL(), cfg.Namespace+".event.slow"); got != 0 {
		t.Errorf("%d events are left, want the second run to have acknowledged it", got)
	}
	a.balance(t, 1, 0)
}

// The queue that all tiers lead to is declared again by those that consume it.
func TestDeletedDueQueueComesBack(t *testing.T) {
	b := openBroker(t, func(c *Config) { c.tierCheckInterval = 300 * time.Millisecond })
	a := newAccount("deleted due queue")
	serve(t, b, counted(a, "due.again", 4))
	for round := range 3 {
		deleteQueue(t, b.names.Due())
		for i := range 10 {
			if err := b.delays.Delay(t.Context(), b.names.EventQueue("due-again"), 200*time.Millisecond, 0, amqp.Publishing{
				MessageId: fmt.Sprint(round, " ", i), DeliveryMode: amqp.Persistent, Headers: amqp.Table{wire.HeaderKey: "due.again"},
			}); err != nil {
				t.Fatal(err)
			}
			a.accept(fmt.Sprint(round, " ", i))
		}
		a.awaitSettled(t)
	}
	a.balance(t, 0, 0)
}
