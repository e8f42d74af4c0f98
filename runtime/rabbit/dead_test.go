package rabbit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/deadletter"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// buried fills the dead letters of the function with the ids 0 to n-1, as a
// worker would.
func buried(t testing.TB, b *Broker, function string, n int) {
	t.Helper()
	fn := onEvent(function, function+".run", nil)
	ch := foreignChannel(t)
	for _, p := range []topology.Part{b.names.Common(), b.names.DeadRegister(), b.names.EventFunction(&fn.Descriptor, b.names.Events())} {
		if err := p.Declare(ch); err != nil {
			t.Fatal(err)
		}
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	confirms := make([]*amqp.DeferredConfirmation, n)
	for i := range n {
		var err error
		if confirms[i], err = ch.PublishWithDeferredConfirm(b.names.Dead(), function, true, false, amqp.Publishing{
			MessageId: strconv.Itoa(i), DeliveryMode: amqp.Persistent, Body: fmt.Appendf(nil, `{"n":%d}`, i),
			Headers: amqp.Table{deadletter.HeaderDeadReason: "permanent", deadletter.HeaderDeadError: "permanent: never", deadletter.HeaderDeadAttempts: int64(3)},
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range confirms {
		if !c.Wait() {
			t.Fatal("a dead letter was not confirmed")
		}
	}
}

// lookThrough looks at all dead letters, keeps them, and returns their ids. The
// size of the first window and the bytes of each may be given.
func lookThrough(t testing.TB, b *Broker, function string, windows ...int) (ids []string) {
	t.Helper()
	w := deadletter.NewBrowser(b.consume, b.names.DeadQueue(function), func(_ context.Context, d *amqp.Delivery) (deadletter.Disposition, error) {
		ids = append(ids, d.MessageId)
		return deadletter.Disposition{}, nil
	})
	if len(windows) == 2 {
		w.Window, w.Budget = windows[0], windows[1]
	}
	if err := w.Run(within(t, 60*time.Second)); err != nil {
		t.Fatal(err)
	}
	return ids
}

func numbered(n int) (ids []string) {
	for i := range n {
		ids = append(ids, strconv.Itoa(i))
	}
	return ids
}

func TestLookingLosesAndReordersNothing(t *testing.T) {
	b := openBroker(t)
	const n = 5000
	buried(t, b, "many", n)
	for range 2 {
		if ids := lookThrough(t, b, "many"); !slices.Equal(ids, numbered(n)) {
			t.Fatalf("got %d letters, in order: %v; want all %d in order", len(ids), slices.IsSorted(ids), n)
		}
	}
	// More often than RabbitMQ delivers by default.
	buried(t, b, "few", 5)
	for range topology.DeliveryLimit + 5 {
		if ids := lookThrough(t, b, "few"); !slices.Equal(ids, numbered(5)) {
			t.Fatalf("got %v, want 5 letters in order", ids)
		}
	}
	// Windows of one letter, and of three of which the last is not full: several
	// channels.
	buried(t, b, "large", 4*deadletter.WindowsPerChannel)
	buried(t, b, "larger", 3*3*deadletter.WindowsPerChannel+1)
	for range 5 {
		if ids := lookThrough(t, b, "large", 1, 1); !slices.Equal(ids, numbered(4*deadletter.WindowsPerChannel)) {
			t.Fatalf("got %v, want %d letters in order", ids, 4*deadletter.WindowsPerChannel)
		}
		if ids := lookThrough(t, b, "larger", 3, 27); !slices.Equal(ids, numbered(3*3*deadletter.WindowsPerChannel+1)) {
			t.Fatalf("got %v, want %d letters in order", ids, 3*3*deadletter.WindowsPerChannel+1)
		}
	}
}

func TestLookingAtOnce(t *testing.T) {
	b := openBroker(t)
	const n = 500
	buried(t, b, "busy", n)
	var visitors sync.WaitGroup
	for range 3 {
		visitors.Go(func() {
			for range 2 {
				seen := 0
				if err := b.VisitDeadLetters(t.Context(), "busy", func(*contract.DeadLetter) (contract.DeadLetterAction, error) {
					seen++
					return contract.ActionKeep, nil
				}); err == nil && seen != n || err != nil && !errors.Is(err, contract.ErrConflict) {
					t.Errorf("got %d letters, %v; want %d, or contract.ErrConflict", seen, err, n)
				}
			}
		})
	}
	visitors.Wait()
	stranger := foreignChannel(t)
	if _, err := stranger.Consume(b.names.DeadQueue("busy"), "", false, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	err := b.VisitDeadLetters(t.Context(), "busy", func(*contract.DeadLetter) (contract.DeadLetterAction, error) { return contract.ActionKeep, nil })
	if !errors.Is(err, contract.ErrConflict) {
		t.Errorf("while a stranger consumes: got %v, want contract.ErrConflict", err)
	}
}

// What a function's publisher sent is what it gets again, to the last header.
func TestReplayIsIdentical(t *testing.T) {
	b := openBroker(t)
	var failing atomic.Bool
	failing.Store(true)
	fn := onEvent("twice", "twice.run", func(context.Context, *contract.Event) error {
		if failing.Load() {
			return errors.New("not now")
		}
		return nil
	})
	fn.Retry = contract.Retry{Max: 2, First: 100 * time.Millisecond}
	stop := serve(t, b, fn)
	ch := foreignChannel(t)
	sent := amqp.Publishing{
		MessageId: "m-1", ContentType: "application/x-odd", ContentEncoding: "odd", CorrelationId: "c", Type: "t",
		AppId: "app", ReplyTo: "somewhere", Priority: 3, Timestamp: time.Unix(1_700_000_000, 0), DeliveryMode: amqp.Persistent,
		Body: []byte{0, 1, 2, '{', 0xff},
		Headers: amqp.Table{
			"text": "ü", "bool": true, "byte": byte(1), "int16": int16(-2), "int32": int32(3), "int64": int64(1) << 60, "float": 1.5, "float32": float32(2.5),
			"time": time.Unix(1_600_000_000, 0), "bytes": []byte{0, 255}, "void": nil, "decimal": amqp.Decimal{Scale: 2, Value: 345},
			"table": amqp.Table{"list": []any{int32(1), "two", amqp.Table{"x": true}}}, "traceparent": "00-x-y-01", "rabbet-causation": "cause",
		},
	}
	if err := ch.PublishWithContext(t.Context(), b.names.Events(), "twice.run", true, false, sent); err != nil {
		t.Fatal(err)
	}
	untilBuried(t, b, "twice", 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	failing.Store(false)
	if err := b.VisitDeadLetters(t.Context(), "twice", func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		if l.Event.Key != "twice.run" || l.Event.Exchange != b.names.Events() || l.Event.Attempt != 2 || l.Code != contract.CodeExhausted {
			t.Errorf("got %+v, want the event as it was published, given up after 2 attempts", l)
		}
		return contract.ActionReplay, nil
	}); err != nil {
		t.Fatal(err)
	}
	deliveries, err := ch.Consume(b.names.EventQueue("twice"), "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := receive(t, "the replayed event", deliveries)
	want := maps.Clone(sent.Headers)
	want[wire.HeaderKey], want[wire.HeaderExchange] = "twice.run", b.names.Events()
	delete(d.Headers, wire.HeaderPublish)
	for name, v := range d.Headers {
		if !reflect.DeepEqual(v, want[name]) {
			t.Errorf("header %s: got %#v, want %#v", name, v, want[name])
		}
	}
	if len(d.Headers) != len(want) {
		t.Errorf("got the headers %v, want %v", d.Headers, want)
	}
	got := amqp.Publishing{
		MessageId: d.MessageId, ContentType: d.ContentType, ContentEncoding: d.ContentEncoding, CorrelationId: d.CorrelationId, Type: d.Type,
		AppId: d.AppId, ReplyTo: d.ReplyTo, Priority: d.Priority, Timestamp: d.Timestamp, DeliveryMode: d.DeliveryMode, Body: d.Body, Headers: sent.Headers,
	}
	if !reflect.DeepEqual(got, sent) {
		t.Errorf("got %+v, want %+v", got, sent)
	}
}

// untilBuried waits until the function has n dead letters.
func untilBuried(t testing.TB, b *Broker, function string, n int) {
	t.Helper()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	until(t, fmt.Sprintf("%d dead letters of %s", n, function), func(ctx context.Context) bool {
		if q, err := b.consume.InspectQueue(ctx, b.names.DeadQueue(function)); err == nil && q.Messages == n {
			return true
		}
		<-tick.C
		return false
	})
}

// What kills every worker comes to the dead letters by the broker's own hand.
func TestDeadByDeliveryLimit(t *testing.T) {
	b := openBroker(t)
	got := make(chan contract.Event, 1)
	fn := onEvent("deadly", "deadly.#", func(_ context.Context, e *contract.Event) error { got <- *e; return nil })
	if err := serve(t, b, fn)(); err != nil {
		t.Fatal(err)
	}
	ch := foreignChannel(t)
	before := time.Now().Add(-2 * time.Second) // the broker's clock has whole seconds
	if err := ch.PublishWithContext(t.Context(), b.names.Events(), "deadly.poison", true, false, amqp.Publishing{Body: []byte("kill"), Headers: amqp.Table{"color": "red"}}); err != nil {
		t.Fatal(err)
	}
	deliveries, err := ch.Consume(b.names.EventQueue("deadly"), "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range topology.DeliveryLimit + 1 {
		d := receive(t, "another delivery", deliveries)
		if err := d.Reject(true); err != nil {
			t.Fatal(err)
		}
	}
	untilBuried(t, b, "deadly", 1)
	var ids []string
	for range 2 {
		if err := b.VisitDeadLetters(t.Context(), "deadly", func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
			ids = append(ids, l.Event.ID)
			if l.Code != contract.CodeLost || !strings.Contains(l.Error, "delivered 21 times") || l.Event.Attempt != 0 || l.Last.Before(before) ||
				l.Event.Key != "deadly.poison" || l.Event.Exchange != b.names.Events() || string(l.Event.Body) != "kill" || l.Event.Headers["color"] != "red" {
				t.Errorf("got %+v, want the event as it was published, and why the broker gave it up", l)
			}
			return contract.ActionKeep, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if len(ids) != 2 || ids[0] == "" || ids[0] != ids[1] {
		t.Fatalf("got the ids %q of a message without one, want the same twice", ids)
	}
	if err := ch.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.VisitDeadLetters(t.Context(), "deadly", func(*contract.DeadLetter) (contract.DeadLetterAction, error) { return contract.ActionReplay, nil }); err != nil {
		t.Fatal(err)
	}
	serve(t, b, fn)
	if e := receive(t, "the replayed event", got); e.ID != ids[0] || e.Key != "deadly.poison" || e.Attempt != 1 || string(e.Body) != "kill" || len(e.Headers) != 1 {
		t.Errorf("got %+v, want the event as it was published, with the id %s", e, ids[0])
	}
}

// The last acknowledgements of many are taken, too, before a look ends.
func TestRemovedLettersDoNotComeBack(t *testing.T) {
	b := openBroker(t)
	for range 8 {
		buried(t, b, "away", 5*channel.QuorumAckLimit)
		if err := b.VisitDeadLetters(t.Context(), "away", func(*contract.DeadLetter) (contract.DeadLetterAction, error) { return contract.ActionDiscard, nil }); err != nil {
			t.Fatal(err)
		}
		if ids := lookThrough(t, b, "away"); len(ids) > 0 {
			t.Fatalf("%d letters that were discarded are there again", len(ids))
		}
	}
}

func TestReplayWithoutAQueueKeepsTheLetter(t *testing.T) {
	b := openBroker(t)
	buried(t, b, "gone", 2)
	if _, err := foreignChannel(t).QueueDelete(b.names.EventQueue("gone"), false, false, false); err != nil {
		t.Fatal(err)
	}
	err := b.VisitDeadLetters(t.Context(), "gone", func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		l.OnRemoved = func() { t.Errorf("letter %s: told gone", l.Event.ID) }
		return contract.ActionReplay, nil
	})
	if !errors.Is(err, contract.ErrUnroutable) || !strings.Contains(err.Error(), b.names.EventQueue("gone")) {
		t.Errorf("got %v, want contract.ErrUnroutable that names the queue", err)
	}
	if ids := lookThrough(t, b, "gone"); !slices.Equal(ids, numbered(2)) {
		t.Errorf("left behind: got %v, want both letters", ids)
	}
}

// The worst moment for a connection to be lost: copies are confirmed, and their
// letters not acknowledged yet.
func TestReplayIsCutOff(t *testing.T) {
	const n = 200
	b := openBroker(t)
	buried(t, b, "cut", n)
	runs := serveReplayed(t, b, "cut", n)
	operator := openBroker(t, func(c *Config) { c.Namespace = b.cfg.Namespace })
	conn, seen := operator.consume.Await(t.Context()).AMQP, 0
	err := deadletter.NewBrowser(operator.consume, b.names.DeadQueue("cut"), func(ctx context.Context, d *amqp.Delivery) (deadletter.Disposition, error) {
		l := deadletter.Read(b.names, d, "cut")
		remove, err := operator.deadLetters.PublishCopy(ctx, d, &l, contract.ActionReplay)
		if seen++; seen < n/2 {
			return deadletter.Disposition{Remove: remove}, err
		}
		return deadletter.Disposition{Remove: func() error {
			_ = conn.CloseDeadline(time.Now())
			return remove()
		}}, err
	}).Run(t.Context())
	if err == nil {
		t.Error("the cut: got nil, want an error")
	}
	gone := 0
	if err := operator.VisitDeadLetters(within(t, 20*time.Second), "cut", func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		l.OnRemoved = func() { gone++ }
		return contract.ActionReplay, nil
	}); err != nil {
		t.Fatal(err)
	}
	if gone < n/2+1 || gone > n {
		t.Errorf("%d letters were left after the cut, want more than half of %d", gone, n)
	}
	runs.balance(t, n, deadletter.FirstWindow)
	if ids := lookThrough(t, b, "cut"); len(ids) > 0 {
		t.Errorf("left behind: got %v, want nothing", ids)
	}
}

// A process that replays is killed again and again. Every letter runs; those
// that were under way at a kill, or their acknowledgements, may run twice.
func TestReplayIsKilled(t *testing.T) {
	const n, kills = 4_000, 3
	b := openBroker(t)
	buried(t, b, "saved", n)
	runs := serveReplayed(t, b, "saved", n)
	for kill := range kills + 1 {
		replay := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestReplayProcess$")
		replay.Env = append(os.Environ(), "RABBET_TEST_REPLAY="+b.cfg.Namespace)
		if err := replay.Start(); err != nil {
			t.Fatal(err)
		}
		if kill == kills {
			if err := replay.Wait(); err != nil {
				t.Fatalf("the last replay: %v", err)
			}
			break
		}
		runs.awaitMore(t, rand.IntN(n/(2*kills)))
		if err := replay.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = replay.Wait() // it was killed
		left := len(lookThrough(t, b, "saved"))
		if t.Logf("killed with %d letters left", left); left == 0 {
			t.Fatal("the replay was over before the kill")
		}
	}
	runs.balance(t, n, kills*deadletter.FirstWindow)
	if ids := lookThrough(t, b, "saved"); len(ids) > 0 {
		t.Errorf("%d letters are left behind", len(ids))
	}
}

// replayed keeps the books on replayed letters of buried.
type replayed struct {
	came chan contract.Event
	runs map[string]int
}

// serveReplayed hosts the function whose n letters are to be replayed.
func serveReplayed(t testing.TB, b *Broker, function string, n int) *replayed {
	r := &replayed{came: make(chan contract.Event, 2*n), runs: map[string]int{}}
	fn := onEvent(function, function+".run", func(_ context.Context, e *contract.Event) error { r.came <- *e; return nil })
	fn.Concurrency = 32
	serve(t, b, fn)
	return r
}

// awaitMore waits for so many runs.
func (r *replayed) awaitMore(t testing.TB, n int) {
	t.Helper()
	for range n {
		e := receive(t, "a run", r.came)
		if want := `{"n":` + e.ID + `}`; string(e.Body) != want || e.Attempt != 1 {
			t.Errorf("letter %s came as %q on attempt %d, want %q, 1", e.ID, e.Body, e.Attempt, want)
		}
		r.runs[e.ID]++
	}
}

// balance closes the books: each of the n letters has run, and no more than
// so many twice.
func (r *replayed) balance(t testing.TB, n, duplicates int) {
	t.Helper()
	for len(r.runs) < n {
		r.awaitMore(t, 1)
	}
	r.awaitMore(t, len(r.came))
	total := 0
	for _, runs := range r.runs {
		total += runs
	}
	t.Logf("letters %d, runs %d (duplicates allowed: %d)", n, total, duplicates)
	if total-n > duplicates {
		t.Errorf("%d runs were double, want at most %d", total-n, duplicates)
	}
}

// TestReplayProcess is the process that TestReplayIsKilled kills.
func TestReplayProcess(t *testing.T) {
	namespace := os.Getenv("RABBET_TEST_REPLAY")
	if namespace == "" {
		t.Skip("it is a part of TestReplayIsKilled")
	}
	b, err := Open(Config{URL: brokerURL(t), Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.VisitDeadLetters(within(t, 60*time.Second), "saved", func(*contract.DeadLetter) (contract.DeadLetterAction, error) { return contract.ActionReplay, nil }); err != nil {
		t.Fatal(err)
	}
}

// A register that others declare at the same moment takes nothing at first.
func TestRegisterThatTakesNothingYet(t *testing.T) {
	b := openBroker(t)
	ch := foreignChannel(t)
	if _, err := ch.QueueDeclare(b.names.DeadFunctions(), true, false, false, false, amqp.Table{
		"x-max-length": 1, "x-overflow": "reject-publish", "x-message-ttl": 500, // so long it is full
	}); err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	first, err := ch.PublishWithDeferredConfirm("", b.names.DeadFunctions(), false, false, amqp.Publishing{})
	if err != nil || !first.Wait() {
		t.Fatalf("fill the register: %v", err)
	}
	if err := b.deadLetters.Register(t.Context(), "late"); err != nil {
		t.Fatal(err)
	}
	d, ok, err := ch.Get(b.names.DeadFunctions(), true)
	if err != nil || !ok || d.MessageId != "late" {
		t.Errorf("on the register: got %q (%v, %v), want the function", d.MessageId, ok, err)
	}
}
