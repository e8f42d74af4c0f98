package rabbit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
)

// networkConfig is the configuration of a process behind a bad network, which
// notices a silent peer within 3 s.
func networkConfig(t testing.TB) (*proxy, Config) {
	t.Helper()
	cfg := requestConfig(t, false)
	removeAfter(t, cfg.Namespace)
	p, url := startProxy(t, cfg.URL)
	cfg.URL = url + "?heartbeat=1"
	cfg.pace = connection.Pace{First: 10 * time.Millisecond, Longest: 200 * time.Millisecond}
	return p, cfg
}

// Whatever the network does to all connections, work resumes by itself and
// the books balance.
func TestBadNetworkLosesNothing(t *testing.T) {
	for name, fault := range map[string]func(p *proxy){
		"reset":                 func(p *proxy) { p.reset() },
		"black hole upstream":   func(p *proxy) { p.hole(upstream) },
		"black hole downstream": func(p *proxy) { p.hole(downstream) },
		"black hole":            func(p *proxy) { p.hole(upstream, downstream) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of the time is that of a silence
			const concurrency, rounds = 16, 2
			p, cfg := networkConfig(t)
			a, calls := newAccount(name), newCallAccount(name)
			publisher := startCaller(t, cfg)
			worker, stop := startWorker(t, cfg, []*Broker{publisher}, append(calls.functions(), mixed(a, "net.work", concurrency))...)
			const events = 4_000
			l := startLoad(t, publisher, a, "net.work", events)
			stopCalls := calls.callers(t, publisher)
			for round := range rounds {
				a.awaitAccepted(t, 1_000*(round+1))
				time.Sleep(someTime())
				lost := []*connection.Transport{publisher.publish.Await(t.Context()), worker.consume.Await(t.Context())}
				fault(p)
				for _, s := range lost {
					receive(t, "the loss is noticed", s.Closed)
				}
				p.hole() // the network is well again
			}
			l.wait()
			stopBurying := a.bury(t, brokerURL(t), cfg.Namespace+".dead.net-work")
			a.awaitSettled(t)
			calls.await(t, 50)
			stopCalls()
			stop()
			stopBurying()
			a.balance(t, rounds*(concurrency+loadPublishers), events/100)
			calls.balance(t, math.MaxInt)
		})
	}
}

// On a network that is slow and well, nothing is taken for lost, and messages
// do not wait for each other's way there and back.
func TestSlowNetwork(t *testing.T) {
	const atOnce, each = 256, 8
	const there, back = 25 * time.Millisecond, 50 * time.Millisecond
	p, cfg := networkConfig(t)
	p.mu.Lock()
	p.lag = [2]time.Duration{upstream: there, downstream: back}
	p.mu.Unlock()
	a, calls := newAccount("slow network"), newCallAccount("slow network")
	publisher := startCaller(t, cfg)
	worker, stop := startWorker(t, cfg, []*Broker{publisher}, append(calls.functions(), counted(a, "slow.ly", atOnce))...)
	var links []*connection.Connection
	for _, b := range []*Broker{publisher, worker} {
		links = append(links, b.publish, b.consume, b.calls, b.work)
	}
	var sessions []*connection.Transport
	for _, l := range links {
		sessions = append(sessions, l.Await(t.Context()))
	}

	stopCalls := calls.callers(t, publisher)
	began := time.Now()
	var publishers sync.WaitGroup
	for i := range atOnce {
		publishers.Go(func() {
			for j := range each {
				id := fmt.Sprintf("%d-%d", i, j)
				if err := publisher.Publish(within(t, 60*time.Second), contract.Event{Key: "slow.ly", ID: id}); err != nil {
					t.Errorf("publish %s: %v", id, err)
				}
				a.accept(id)
			}
		})
	}
	publishers.Wait()
	a.awaitSettled(t)
	rounds := int(time.Since(began) / (there + back))
	t.Logf("%d events took the time of %d ways there and back", atOnce*each, rounds)
	if rounds > atOnce*each/8 {
		t.Errorf("%d events took the time of %d ways there and back, want a few of them for each %d", atOnce*each, rounds, atOnce)
	}
	calls.await(t, 20)
	stopCalls()
	stop()
	a.balance(t, 0, 0)
	calls.balance(t, 0)
	for id, err := range calls.answers {
		if err != nil || calls.runs[id] != 1 {
			t.Errorf("call %s: got %v after %d runs, want an answer after one", id, err, calls.runs[id])
		}
	}
	for i, l := range links {
		if l.Await(t.Context()) != sessions[i] {
			t.Errorf("the connection %q was given up", l.Name)
		}
	}
}

// However often somebody closes all connections over RabbitMQ's management
// API, work resumes by itself and the books balance.
func TestClosedConnectionsLoseNothing(t *testing.T) {
	const concurrency, rounds, events = 16, 2, 10_000
	cfg := requestConfig(t, false)
	removeAfter(t, cfg.Namespace)
	a := newAccount("connections closed over the management API")
	publisher := startCaller(t, cfg)
	worker, stop := startWorker(t, cfg, []*Broker{publisher}, counted(a, "close.d", concurrency))
	l := startLoad(t, publisher, a, "close.d", 100*events) // more than it takes: the API lists a connection after 5 s
	for round := range rounds {
		a.awaitAccepted(t, events*(round+1)/(rounds+1))
		for _, s := range []*connection.Transport{publisher.publish.Await(t.Context()), worker.publish.Await(t.Context()), worker.consume.Await(t.Context())} {
			until(t, "the connections are closed", func(context.Context) bool {
				if closeConnections(t, cfg.Namespace) == 0 {
					time.Sleep(pollInterval)
				}
				return s.IsClosed()
			})
		}
	}
	a.awaitAccepted(t, events)
	l.stop()
	l.wait()
	a.awaitSettled(t)
	stop()
	a.balance(t, rounds*(concurrency+loadPublishers), 0)
}

// A hole that swallows the confirmation leaves the publish unknown, and never
// refused: the event is there.
func TestLostConfirmationIsUnknown(t *testing.T) {
	p, cfg := networkConfig(t)
	a := newAccount("lost confirmation")
	publisher := startCaller(t, cfg)
	straight := cfg
	straight.URL = brokerURL(t)
	startWorker(t, straight, []*Broker{publisher}, counted(a, "some.thing", 1))

	p.hole(downstream)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := publisher.Publish(ctx, contract.Event{Key: "some.thing", ID: "by its ctx"}); !errors.Is(err, contract.ErrUnconfirmed) || executedOf(err) != contract.ExecutedUnknown || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("within its ctx: got %v (executed %q), want unconfirmed, executed unknown, and why", err, executedOf(err))
	}
	if took := time.Since(began); took > 300*time.Millisecond {
		t.Errorf("it took %v, want the 200 ms of its ctx", took)
	}
	if err := publisher.Publish(t.Context(), contract.Event{Key: "some.thing", ID: "by the loss"}); !errors.Is(err, contract.ErrUnconfirmed) || executedOf(err) != contract.ExecutedUnknown {
		t.Errorf("without limit: got %v (executed %q), want unconfirmed, executed unknown", err, executedOf(err))
	}
	for _, id := range []string{"by its ctx", "by the loss"} {
		a.mayBeTaken(id)
		a.await(t, id+" is processed", func() bool { return a.runs[id] > 0 })
	}
	a.balance(t, 0, 0)
}

// An acknowledgement that comes after a reconnect must hit nothing: delivery
// tags begin anew.
func TestLateAckHitsNoOtherDelivery(t *testing.T) {
	p, cfg := networkConfig(t)
	b := startCaller(t, cfg)
	var running sync.Map // by run: what lets it return
	begun, over := make(chan int64, 10), make(chan int64, 10)
	var runs atomic.Int64
	fn := onEvent("hold", "hold.on", func(context.Context, *contract.Event) error {
		run, release := runs.Add(1), make(chan struct{})
		running.Store(run, release)
		begun <- run
		<-release
		return nil
	})
	fn.Concurrency = 8
	release := func(run int64) {
		r, _ := running.Load(run)
		close(r.(chan struct{}))
	}
	cfg.Observe = func(contract.Invocation) { over <- 0 }
	worker, stop := startWorker(t, cfg, []*Broker{b}, fn)

	publishUntilAccepted(t.Context(), t, b, newAccount("late ack"), contract.Event{Key: "hold.on", ID: "one"})
	if run := receive(t, "the first run", begun); run != 1 {
		t.Fatalf("got run %d", run)
	}
	p.reset()
	receive(t, "the second run, after the connection was lost", begun)
	release(1) // acknowledged under the tag 1, as the second delivery is
	receive(t, "the end of the first run", over)
	for range 3 { // whatever it has sent arrives before the answers
		if _, err := worker.consume.InspectQueue(t.Context(), cfg.Namespace+".event.hold"); err != nil {
			t.Fatal(err)
		}
	}
	p.reset() // had that hit the second delivery, this were the end of the event
	receive(t, "the third run: nobody had acknowledged the second", begun)
	release(2)
	release(3)
	receive(t, "the end of the second run", over)
	receive(t, "the end of the third run", over)
	stop()
	if depth := queueLength(t, brokerURL(t), cfg.Namespace+".event.hold"); depth != 0 {
		t.Errorf("%d events in the queue, want the third run to have acknowledged it", depth)
	}
}

func TestStartsWithoutTheBroker(t *testing.T) {
	p, cfg := networkConfig(t)
	p.down()
	a := newAccount("started without the broker")
	b, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx, []contract.Function{counted(a, "early.bird", 1)}) }()
	short, done := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer done()
	if err := b.Ready(short); err == nil || b.Health() == nil {
		t.Errorf("without the broker: Ready said %v, Health %v, want errors", err, b.Health())
	}
	p.up(t)
	if err := b.Ready(within(t, 20*time.Second)); err != nil {
		t.Fatalf("with the broker: %v", err)
	}
	awaitWorkers(t, b, "early-bird", true)
	publishUntilAccepted(t.Context(), t, b, a, contract.Event{Key: "early.bird", ID: "worm"})
	a.awaitSettled(t)
	if err := b.Health(); err != nil {
		t.Errorf("Health: got %v, want nil", err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// A cluster's nodes are tried in turn: the loss of one is a reconnect.
func TestOtherAddressTakesOver(t *testing.T) {
	one, cfg := networkConfig(t)
	two, second := startProxy(t, brokerURL(t))
	cfg.URL += "," + second + "?heartbeat=1"
	a := newAccount("two addresses")
	b := startCaller(t, cfg)
	startWorker(t, cfg, []*Broker{b}, counted(a, "any.where", 4))
	for round, down := range []*proxy{one, two, one} {
		for i := range 100 {
			publishUntilAccepted(t.Context(), t, b, a, contract.Event{Key: "any.where", ID: fmt.Sprintf("%d-%d", round, i)})
		}
		a.awaitSettled(t)
		down.down()
		for i := range 100 {
			publishUntilAccepted(t.Context(), t, b, a, contract.Event{Key: "any.where", ID: fmt.Sprintf("down-%d-%d", round, i)})
		}
		a.awaitSettled(t)
		down.up(t)
	}
	a.balance(t, 12, 0)
}

// However many wait already, a publish that finds no connection says so in time.
func TestPublishWhileDown(t *testing.T) {
	p, cfg := networkConfig(t)
	b := startCaller(t, cfg)
	lost := b.publish.Await(t.Context())
	p.down()
	receive(t, "the loss is noticed", lost.Closed)
	const publishers = 1_000
	var wg sync.WaitGroup
	began := time.Now()
	for i := range publishers {
		ctx := t.Context() // without a deadline: the publisher's own patience ends it
		if i%2 == 0 {
			short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			ctx = short
		}
		wg.Go(func() {
			err := b.Publish(ctx, contract.Event{Key: "any.thing"})
			if !errors.Is(err, contract.ErrUnavailable) || executedOf(err) != contract.ExecutedNo {
				t.Errorf("got %v (executed %q), want unavailable, executed no", err, executedOf(err))
			}
			if took := time.Since(began); ctx != t.Context() && took > time.Second {
				t.Errorf("it took %v, want its ctx's 50ms", took)
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took > connection.ReconnectPatience+5*time.Second {
		t.Errorf("it took %v, want %v", took, connection.ReconnectPatience)
	}
}

// A worker whose broker has gone mute stops soon after its grace period: it says
// goodbye once, and waits for no more answers when there was none.
func TestMuteBrokerHoldsUpNoStop(t *testing.T) {
	const grace = time.Second
	cfg := requestConfig(t, false)
	removeAfter(t, cfg.Namespace)
	p, url := startProxy(t, cfg.URL)
	cfg.URL, cfg.Grace = url, grace // a silence is noticed after 15 s
	b, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	begun := make(chan bool, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	served := make(chan error, 1)
	go func() { // ends with ctx
		served <- b.Serve(ctx, []contract.Function{
			function("answer", echo),
			onEvent("work", "mute.work", func(ctx context.Context, _ *contract.Event) error {
				begun <- true
				<-ctx.Done()
				return ctx.Err()
			}),
		})
	}()
	awaitWorkers(t, b, "answer", true)
	awaitWorkers(t, b, "work", true)
	if err := b.Publish(within(t, 20*time.Second), contract.Event{Key: "mute.work", ID: "1"}); err != nil {
		t.Fatal(err)
	}
	receive(t, "the run", begun)
	p.hole(upstream, downstream)
	stopped := time.Now()
	cancel()
	if err := receive(t, "the end of Serve", served); err == nil {
		t.Error("Serve: got nil, want that a run was not finished")
	}
	_ = b.Close()
	if took := time.Since(stopped); took > grace+2*channel.CloseTimeout {
		t.Errorf("it stopped after %v, want %v and little more", took, grace+channel.CloseTimeout)
	}
}

// Where nothing runs, all that is closed shares the time that an answer has.
func TestMuteBrokerHoldsUpNoClose(t *testing.T) {
	cfg := requestConfig(t, false)
	removeAfter(t, cfg.Namespace)
	p, url := startProxy(t, cfg.URL)
	cfg.URL = url
	b := startCaller(t, cfg)
	p.hole(upstream, downstream)
	began := time.Now()
	_ = b.Close()
	if took := time.Since(began); took > channel.CloseTimeout*7/4 {
		t.Errorf("Close took %v, want %v", took, channel.CloseTimeout)
	}
}
