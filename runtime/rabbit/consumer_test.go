package rabbit

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/consumer"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/deadletter"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

func TestRetryThenSuccess(t *testing.T) {
	attempts := make(chan int, 10)
	runs := make(chan contract.Invocation, 10)
	b := openBroker(t, func(c *Config) { c.Observe = func(i contract.Invocation) { runs <- i } })
	serve(t, b, onEvent("flaky", "flaky.run", func(_ context.Context, e *contract.Event) error {
		attempts <- e.Attempt
		if e.Attempt < 3 {
			return errors.New("not yet")
		}
		if e.Key != "flaky.run" || e.Exchange == "" || e.ID != "x1" || string(e.Body) != "body" {
			t.Errorf("third attempt: got %+v, want the event as it was published", e)
		}
		return nil
	}))
	if err := b.Publish(t.Context(), contract.Event{Key: "flaky.run", ID: "x1", Body: []byte("body")}); err != nil {
		t.Fatal(err)
	}
	for want := 1; want <= 3; want++ {
		if got := receive(t, "an attempt", attempts); got != want {
			t.Errorf("attempt: got %d, want %d", got, want)
		}
	}
	for _, want := range []contract.Outcome{contract.OutcomeRetry, contract.OutcomeRetry, contract.OutcomeDone} {
		if got := receive(t, "an invocation", runs); got.Outcome != want || got.Function != "flaky" || got.ID != "x1" {
			t.Errorf("observed: got %+v, want outcome %s", got, want)
		}
	}
}

func TestDeadLetterKeepsBytesAndHeaders(t *testing.T) {
	b := openBroker(t)
	serve(t, b, onEvent("invalid", "invalid.run", func(context.Context, *contract.Event) error { return faas.Permanent("never") }))
	body := []byte{0, 1, 2, '{', 0xff}
	if err := foreignChannel(t).PublishWithContext(t.Context(), b.names.Events(), "invalid.run", false, false, amqp.Publishing{
		MessageId: "raw-1", ContentType: "application/x-odd", Body: body,
		Headers: amqp.Table{"deep": amqp.Table{"er": []any{int32(1), amqp.Table{"x": true}}}, "CC": []any{"elsewhere"}},
	}); err != nil {
		t.Fatal(err)
	}
	d := deadLetter(t, b, "invalid")
	if !bytes.Equal(d.Body, body) || d.MessageId != "raw-1" || d.ContentType != "application/x-odd" {
		t.Errorf("got body %q, id %q, type %q, want them as they were published", d.Body, d.MessageId, d.ContentType)
	}
	if deep, ok := d.Headers["deep"].(amqp.Table); !ok || len(deep) != 1 {
		t.Errorf("header deep: got %v, want it as it was published", d.Headers["deep"])
	}
	for name, want := range map[string]string{deadletter.HeaderDeadReason: "permanent", deadletter.HeaderDeadError: "permanent: never", wire.HeaderKey: "invalid.run", deadletter.HeaderDeadWorker: b.cfg.Process} {
		if got := wire.String(d.Headers, name); got != want {
			t.Errorf("header %s: got %q, want %q", name, got, want)
		}
	}
	if got := wire.Int(d.Headers, deadletter.HeaderDeadAttempts); got != 1 {
		t.Errorf("attempts: got %d, want 1", got)
	}
}

func TestPanicsUseUpAttempts(t *testing.T) {
	b := openBroker(t)
	var ran atomic.Int32
	fn := onEvent("broken", "broken.run", func(context.Context, *contract.Event) error { ran.Add(1); panic("boom") })
	fn.Retry.Max = 3
	serve(t, b, fn)
	if err := b.Publish(t.Context(), contract.Event{Key: "broken.run"}); err != nil {
		t.Fatal(err)
	}
	d := deadLetter(t, b, "broken")
	if got := wire.Int(d.Headers, deadletter.HeaderDeadAttempts); got != 3 || ran.Load() != 3 {
		t.Errorf("attempts: header says %d, the function ran %d times, want 3", got, ran.Load())
	}
	if got := wire.String(d.Headers, deadletter.HeaderDeadStack); !strings.Contains(got, "consumer_test.go") {
		t.Errorf("stack: got %q, want the place of the panic", got)
	}
}

func TestForeignMessagesAreHandled(t *testing.T) {
	got := make(chan contract.Event, 10)
	b := openBroker(t)
	serve(t, b, onEvent("open", "open.#", func(_ context.Context, e *contract.Event) error { got <- *e; return nil }))
	ch := foreignChannel(t)
	for name, p := range map[string]amqp.Publishing{
		"plain":           {Body: []byte(`{"id":"42"}`)},
		"nested headers":  {Headers: amqp.Table{"a": amqp.Table{"b": []any{amqp.Table{"c": nil}}}}},
		"odd own headers": {Headers: amqp.Table{"traceparent": int32(4), "rabbet-attempt": amqp.Table{}, "rabbet-not-before": "soon", "rabbet-key": []any{}, "x-death": "none"}},
		"huge header":     {Headers: amqp.Table{"huge": strings.Repeat("x", 100<<10)}},
		"huge attempt":    {Headers: amqp.Table{"rabbet-attempt": "99999999999999999999"}},
		"cloud event":     {Headers: amqp.Table{"cloudEvents:id": "ce-1", "ce-type": "made", "cloudEvents_time": "2026-01-02T03:04:05Z"}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := ch.PublishWithContext(t.Context(), b.names.Events(), "open.door", false, false, p); err != nil {
				t.Fatal(err)
			}
			e := receive(t, "the event", got)
			if e.Key != "open.door" || e.ID == "" || e.Attempt < 1 || e.Time.IsZero() || e.ContentType != "application/json" || !bytes.Equal(e.Body, p.Body) {
				t.Errorf("got %+v, want its gaps filled in", e)
			}
			if name == "cloud event" && (e.ID != "ce-1" || e.Type != "made" || e.Time.Year() != 2026) {
				t.Errorf("got %+v, want the attributes of the CloudEvent", e)
			}
		})
	}
}

func TestHugeHeadersReachTheDeadLetters(t *testing.T) {
	b := openBroker(t)
	serve(t, b, onEvent("picky", "picky.run", func(context.Context, *contract.Event) error { return faas.Invalid("no") }))
	if err := foreignChannel(t).PublishWithContext(t.Context(), b.names.Events(), "picky.run", false, false, amqp.Publishing{
		MessageId: "huge", Headers: amqp.Table{"huge": strings.Repeat("x", 130_000), "small": "kept"},
	}); err != nil {
		t.Fatal(err)
	}
	d := deadLetter(t, b, "picky")
	if d.MessageId != "huge" || d.Headers["small"] != "kept" || wire.String(d.Headers, deadletter.HeaderDeadReason) != "invalid" {
		t.Errorf("got %q with reason %q, want the message with its reason", d.MessageId, wire.String(d.Headers, deadletter.HeaderDeadReason))
	}
}

func TestDeletedQueueComesBack(t *testing.T) {
	got := make(chan string, 10)
	b := openBroker(t)
	serve(t, b, onEvent("keep", "keep.on", func(_ context.Context, e *contract.Event) error { got <- e.ID; return nil }))
	management(t, http.MethodDelete, "/api/queues/%2F/"+url.PathEscape(b.names.EventQueue("keep")), nil)
	until(t, "the queue is back", func(ctx context.Context) bool {
		return b.Publish(ctx, contract.Event{Key: "keep.on", ID: "again"}) == nil
	})
	if id := receive(t, "an event over the new queue", got); id != "again" {
		t.Errorf("got %q, want %q", id, "again")
	}
}

func TestDriftIsReportedAndLeftAlone(t *testing.T) {
	b := openBroker(t)
	fn := onEvent("drift", "drift.run", func(context.Context, *contract.Event) error { return nil })
	queue := b.names.EventQueue("drift")
	other := b.names.EventFunction(&fn.Descriptor, b.names.Events())
	other.Queues[1].Arguments["x-delivery-limit"] = int64(3)
	ch := foreignChannel(t)
	if err := other.Declare(ch); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- b.Serve(ctx, []contract.Function{fn})
	}()
	until(t, "the drift shows in Health", func(ctx context.Context) bool {
		changed := b.consume.Changed()
		if err := b.Health(); err != nil && strings.Contains(err.Error(), queue) && strings.Contains(err.Error(), "x-delivery-limit 3 where 20 is wanted") {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
		return false
	})
	cancel()
	if err := receive(t, "Serve ends", done); err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
	if _, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil); err != nil {
		t.Errorf("the queue: got %v, want it left alone", err)
	}
}

func TestDrainFinishesAndGivesBack(t *testing.T) {
	b := openBroker(t)
	started, release := make(chan string, 10), make(chan struct{})
	fn := onEvent("slow", "slow.run", func(_ context.Context, e *contract.Event) error { started <- e.ID; <-release; return nil })
	fn.Concurrency = 1
	stop := serve(t, b, fn)
	for _, id := range []string{"first", "second"} {
		if err := b.Publish(t.Context(), contract.Event{Key: "slow.run", ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	if id := receive(t, "the first run", started); id != "first" {
		t.Fatalf("got %q, want the first event", id)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	awaitWorkers(t, b, "slow", false)
	close(release)
	if err := receive(t, "Serve ends", stopped); err != nil {
		t.Errorf("Serve: got %v, want a clean drain", err)
	}
	select {
	case id := <-started:
		t.Errorf("event %q was started during the drain", id)
	default:
	}
	serve(t, b, fn)
	if id := receive(t, "the second run", started); id != "second" {
		t.Errorf("got %q, want the second event once, and the first not again", id)
	}
}

func TestTailSeesEventsPass(t *testing.T) {
	b := openBroker(t)
	serve(t, b, onEvent("done", "order.#", func(context.Context, *contract.Event) error { return nil }))
	ctx, cancel := context.WithCancel(t.Context())
	seen, ended := make(chan contract.Event, 100), make(chan error, 1)
	go func() { ended <- b.Tail(ctx, "order.*", func(e contract.Event) { seen <- e }) }()
	var e contract.Event
	until(t, "the tail sees an event", func(ctx context.Context) bool {
		if err := b.Publish(ctx, contract.Event{Key: "order.made", Body: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
		select {
		case e = <-seen:
			return true
		case <-time.After(pollInterval):
			return false
		}
	})
	if e.Key != "order.made" {
		t.Errorf("got %+v, want the event that was published", e)
	}
	cancel()
	if err := receive(t, "Tail ends", ended); err != nil {
		t.Errorf("Tail: got %v, want nil", err)
	}
}

func TestBroadcastReachesEverybody(t *testing.T) {
	a := openBroker(t)
	b := openBroker(t, func(c *Config) { c.Namespace = a.cfg.Namespace })
	heard := make(chan string, 10)
	defer a.Listen("topic", func(body []byte) { heard <- "a:" + string(body) })()
	defer b.Listen("topic", func(body []byte) { heard <- "b:" + string(body) })()
	if err := a.Broadcast(t.Context(), "topic", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{receive(t, "a broadcast", heard): true, receive(t, "a broadcast", heard): true}
	if !got["a:hello"] || !got["b:hello"] {
		t.Errorf("got %v, want both to hear it", got)
	}
}

// awaitVersion waits until that version of the function is the one that b knows.
func awaitVersion(t testing.TB, b *Broker, fn, version string) {
	t.Helper()
	until(t, fn+" is of version "+version, func(ctx context.Context) bool {
		changed := b.Directory().Changed()
		if live, _ := b.Directory().Find(fn); live.Version == version {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
		return false
	})
}

func TestVersionsOfAFunctionShareItsQueue(t *testing.T) {
	old := openBroker(t)
	ran := make(chan string, 100)
	version := func(name string, keys ...string) contract.Function {
		fn := onEvent("shared", "", func(_ context.Context, e *contract.Event) error { ran <- name + " " + e.Key; return nil })
		fn.Keys, fn.Version, fn.Concurrency = keys, name, 1
		return fn
	}
	serve(t, old, version("old", "was.wanted", "is.wanted"))
	recent := openBroker(t, func(c *Config) { c.Namespace = old.cfg.Namespace })
	serve(t, recent, version("new", "is.wanted", "will.be"))
	awaitVersion(t, old, "shared", "new")
	if err := old.Publish(t.Context(), contract.Event{Key: "was.wanted"}); !errors.Is(err, contract.ErrUnroutable) {
		t.Errorf("publish to the key that the newer version dropped: got %v, want %v", err, contract.ErrUnroutable)
	}
	// The queue serves both workers in turn; only the newer one knows the key.
	for range 2 {
		if err := old.Publish(t.Context(), contract.Event{Key: "will.be"}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if got := receive(t, "a run", ran); got != "new will.be" {
			t.Errorf("got %q, want the newer version to run", got)
		}
	}
}

// An event that only a newer version knows waits for it, without being
// delivered in vain until it counts as lost.
func TestEventsOfANewKeyWaitForTheNewVersion(t *testing.T) {
	old := openBroker(t)
	type told struct {
		version, id string
		redelivered bool
	}
	ran, begun, busy := make(chan told, 100), make(chan bool), make(chan bool)
	version := func(name string, keys ...string) contract.Function {
		fn := onEvent("shared", "", func(_ context.Context, e *contract.Event) error {
			if e.ID == "long" {
				close(begun)
				<-busy
				return nil
			}
			ran <- told{name, e.ID, e.Redelivered}
			return nil
		})
		fn.Keys, fn.Version, fn.Concurrency = keys, name, 1
		return fn
	}
	serve(t, old, version("old", "is.wanted"))
	recent := openBroker(t, func(c *Config) { c.Namespace = old.cfg.Namespace })
	serve(t, recent, version("new", "is.wanted", "will.be"))
	awaitVersion(t, old, "shared", "new")
	for _, id := range []string{"long", "1", "2", "3"} {
		if err := old.Publish(t.Context(), contract.Event{Key: "will.be", ID: id}); err != nil {
			t.Fatal(err)
		}
		if id == "long" {
			receive(t, "the begin of a long run", begun)
		}
	}
	// The old worker is free for what it knows meanwhile.
	time.Sleep(2 * consumer.YieldPause)
	if err := old.Publish(t.Context(), contract.Event{Key: "is.wanted", ID: "old"}); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, "a run of the old version", ran); got != (told{"old", "old", false}) {
		t.Errorf("got %+v, want the old version to run what it knows", got)
	}
	close(busy)
	for range 3 {
		if got := receive(t, "a run of the new version", ran); got.version != "new" || got.redelivered {
			t.Errorf("got %+v, want a first delivery to the new version", got)
		}
	}
}

// When a release is rolled back, an event that only it knew is not waited for:
// an ordered function would be stuck behind it.
func TestRolledBackVersionHoldsUpNothing(t *testing.T) {
	old := openBroker(t)
	ran := make(chan string, 100)
	version := func(name string, keys ...string) contract.Function {
		fn := onEvent("ordered", "", func(_ context.Context, e *contract.Event) error { ran <- name + " " + e.ID; return nil })
		fn.Keys, fn.Version, fn.Concurrency, fn.Ordered = keys, name, 1, true
		return fn
	}
	serve(t, old, version("old", "is.wanted"))
	recent := openBroker(t, func(c *Config) { c.Namespace = old.cfg.Namespace })
	stop := serve(t, recent, version("new", "is.wanted", "will.be"))
	awaitVersion(t, old, "ordered", "new")
	// The old worker is the active one, and waits for the new one to take this.
	if err := old.Publish(t.Context(), contract.Event{Key: "will.be", ID: "1"}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	awaitVersion(t, old, "ordered", "old")
	if err := old.Publish(t.Context(), contract.Event{Key: "is.wanted", ID: "2"}); err != nil {
		t.Fatal(err)
	}
	for got := ""; got != "old 2"; {
		got = receive(t, "a run of the event behind", ran)
	}
}

// A binding that somebody deletes comes back; the broker tells nobody of it.
func TestDeletedBindingComesBack(t *testing.T) {
	b := openBroker(t, func(c *Config) { c.redeclareInterval = 200 * time.Millisecond })
	ran := make(chan string, 10)
	serve(t, b, onEvent("listener", "a.b", func(_ context.Context, e *contract.Event) error { ran <- e.ID; return nil }))
	if err := foreignChannel(t).QueueUnbind(b.names.EventQueue("listener"), "a.b", b.names.Events(), nil); err != nil {
		t.Fatal(err)
	}
	until(t, "the event is routed", func(context.Context) bool {
		return b.Publish(t.Context(), contract.Event{Key: "a.b", ID: "1"}) == nil
	})
	receive(t, "a run", ran)
}

// A foreign id that AMQP has no room for does no harm, and is the same each time.
func TestForeignIDThatIsTooLong(t *testing.T) {
	b := openBroker(t)
	ran := make(chan string, 10)
	serve(t, b, onEvent("listener", "a.b", func(_ context.Context, e *contract.Event) error {
		ran <- e.ID
		if e.Attempt == 1 {
			return errors.New("again")
		}
		return nil
	}))
	id := strings.Repeat("q", 300)
	if err := foreignChannel(t).Publish(b.names.Events(), "a.b", false, false, amqp.Publishing{Headers: amqp.Table{"cloudEvents:id": id}}); err != nil {
		t.Fatal(err)
	}
	first, second := receive(t, "the first run", ran), receive(t, "the second run", ran)
	if first != second || len(first) > wire.MaxShort || first == "" {
		t.Errorf("the id was %q, and then %q", first, second)
	}
}
