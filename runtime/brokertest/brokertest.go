// Package brokertest tests whether a broker does what package contract promises.
// Every broker must pass Run, and RunHistory if it can lose a worker:
//
//	func TestConformance(t *testing.T) {
//		brokers := map[*testing.T]*memory.Broker{}
//		brokertest.Run(t, func(t *testing.T) brokertest.Broker {
//			if brokers[t] == nil {
//				brokers[t] = memory.New(memory.Config{})
//				t.Cleanup(func() { brokers[t].Close() })
//			}
//			return brokers[t]
//		})
//	}
//
// Each case asserts what a user would notice, and knows nothing of how the broker
// works. Cases wait for events, for up to 10 s, and not for time to pass.
package brokertest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// A Broker has the methods that the cases call. For what they must do, see
// memory.Broker.
type Broker interface {
	contract.Broker
	contract.DeadLetters
	Serve(ctx context.Context, fns []contract.Function) error
	Directory() *contract.Directory
	Tail(ctx context.Context, pattern string, fn func(contract.Event)) error
	Broadcast(ctx context.Context, topic string, body []byte) error
	Listen(topic string, fn func(body []byte)) (stop func())
	Ready(ctx context.Context) error
	Health() error
	Close() error
}

// limit is how long a case waits for an event before it fails.
const limit = 10 * time.Second

// Run runs every case as a subtest. open must return a broker and close it in
// t.Cleanup. When it is called again with the same t, it must return the broker
// of another process of the same system, or the same broker if a system has only
// one. With another t, it must return a broker of another system. If there are
// prefixes, Run runs only the cases whose names begin with one of them.
func Run(t *testing.T, open func(t *testing.T) Broker, prefixes ...string) {
	for _, c := range []struct {
		name string
		run  func(*system)
	}{
		{"Publish/EveryFunctionOnce", everyFunctionOnce},
		{"Publish/Patterns", patterns},
		{"Publish/OneCopyForSeveralMatchingKeys", oneCopyForSeveralKeys},
		{"Publish/OtherExchange", otherExchange},
		{"Publish/RawEvent", rawEvent},
		{"Publish/FilledIn", filledIn},
		{"Publish/Unroutable", unroutablePublish},
		{"Publish/BadKey", badKey},
		{"Publish/BeforeSubscribe", beforeSubscribe},
		{"Publish/WaitsForItsWorker", waitsForItsWorker},
		{"Publish/ManyAtOnce", manyAtOnce},
		{"Publish/NotBefore", notBefore},
		{"Publish/TooFarAhead", tooFarAhead},
		{"Publish/Ordered", ordered},
		{"Publish/OrderedThroughReplacement", orderedThroughReplacement},
		{"Publish/SeveralAtOnce", severalAtOnce},
		{"Publish/ReopenedInTheMiddle", reopened},
		{"Publish/GoesOnAfterErrors", goesOn},
		{"Publish/OneAtATime", oneAtATime},
		{"Call/Reply", callReply},
		{"Call/SharedByWorkers", sharedByWorkers},
		{"Call/Errors", callErrors},
		{"Call/Unroutable", unroutableCall},
		{"Call/UnroutableAfterTheLastWorker", unroutableAfterTheLast},
		{"Call/ExpiredNeverStarts", expiredNeverStarts},
		{"Call/DeadlineWhileRunning", deadlineWhileRunning},
		{"Call/Cancel", cancelReaches},
		{"Call/Metadata", metadata},
		{"Call/Session", session},
		{"Worker/ConcurrencyOfEvents", concurrencyOfEvents},
		{"Worker/ConcurrencyOfCalls", concurrencyOfCalls},
		{"Worker/Drain", drain},
		{"Worker/CallsSurviveReplacement", callsSurviveReplacement},
		{"Worker/Directory", directory},
		{"Retry/AttemptsCounted", attemptsCounted},
		{"Retry/After", retryAfter},
		{"Retry/Panic", panicIsRetried},
		{"Retry/Permanent", permanentIsNot},
		{"Retry/Exhausted", exhausted},
		{"Retry/Next", nextDecides},
		{"Retry/DelaysNoOther", delaysNoOther},
		{"Retry/OrderedHoldsOrder", orderedHoldsOrder},
		{"Retry/Postponed", postponed},
		{"Dead/Letter", deadLetter},
		{"Dead/KeptInOrder", deadKeptInOrder},
		{"Dead/Replay", deadReplay},
		{"Dead/Replace", deadReplace},
		{"Dead/Discard", deadDiscard},
		{"Dead/StopsAtAnError", deadStopsAtAnError},
		{"Dead/WithoutWorkers", deadWithoutWorkers},
		{"Dead/UnknownFunction", deadUnknownFunction},
		{"System/Broadcast", broadcast},
		{"System/Tail", tail},
		{"System/Close", closed},
		{"System/CloseAtOnce", closedAtOnce},
	} {
		hasPrefix := func(prefix string) bool { return strings.HasPrefix(c.name, prefix) }
		if len(prefixes) > 0 && !slices.ContainsFunc(prefixes, hasPrefix) {
			continue
		}
		t.Run(c.name, func(t *testing.T) { c.run(&system{T: t, open: open, live: map[string]int{}}) })
	}
}

// A system has the brokers and workers of one case.
type system struct {
	*testing.T
	open    func(t *testing.T) Broker
	brokers []Broker
	live    map[string]int // number of workers, by function
}

// broker opens a broker of another process and waits until it is ready.
func (s *system) broker() Broker {
	s.Helper()
	b := s.open(s.T)
	if err := b.Ready(s.within()); err != nil {
		s.Fatalf("Ready: %v", err)
	}
	s.brokers = append(s.brokers, b)
	return b
}

// within returns a ctx that is done after limit.
func (s *system) within() context.Context {
	ctx, cancel := context.WithTimeout(s.Context(), limit)
	s.Cleanup(cancel)
	return ctx
}

// serve hosts fns in another process, until stop is called or the case ends. It
// waits until every broker of the case has the worker in its directory.
func (s *system) serve(fns ...contract.Function) *server {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	v := &server{system: s, fns: fns, broker: s.broker(), cancel: cancel, done: make(chan error, 1)}
	go func() { v.done <- v.broker.Serve(ctx, fns) }()
	s.Cleanup(func() { v.stop() })
	for _, f := range fns {
		s.live[f.Name]++
	}
	s.awaitDirectories(fns)
	return v
}

// awaitDirectories waits until every directory of the case has the right number of
// workers of each function.
func (s *system) awaitDirectories(fns []contract.Function) {
	s.Helper()
	timeout := time.After(limit)
	for _, b := range s.brokers {
		for _, f := range fns {
			for {
				changed := b.Directory().Changed()
				live, _ := b.Directory().Find(f.Name)
				if len(live.Workers) == s.live[f.Name] {
					break
				}
				select {
				case <-changed:
				case <-timeout:
					s.Fatalf("the directory has %d workers of %s, want %d", len(live.Workers), f.Name, s.live[f.Name])
				}
			}
		}
	}
}

// A server is one running Serve.
type server struct {
	*system
	fns     []contract.Function
	broker  Broker
	cancel  context.CancelFunc
	done    chan error
	ending  bool
	stopped bool
}

// startStop ends the deliveries to the worker, and waits until every directory
// shows it. The worker has not drained yet.
func (v *server) startStop() {
	v.Helper()
	v.end()
	v.awaitDirectories(v.fns)
}

// stop ends the worker and waits until it has drained.
func (v *server) stop() {
	v.Helper()
	if v.stopped {
		return
	}
	v.stopped = true
	v.end()
	if err := receive(v.T, v.done, "the end of Serve"); err != nil {
		v.Errorf("Serve: got %v, want nil after a clean drain", err)
	}
}

// end ends Serve without waiting for it.
func (v *server) end() {
	if v.ending {
		return
	}
	v.ending = true
	v.cancel()
	for _, f := range v.fns {
		v.live[f.Name]--
	}
}

// publish publishes events, and fails the case if that fails.
func (s *system) publish(b Broker, events ...contract.Event) {
	s.Helper()
	for _, e := range events {
		if err := b.Publish(s.within(), e); err != nil {
			s.Fatalf("publish %s: %v", e.Key, err)
		}
	}
}

// receive returns the next value of ch, and fails the test if there is none within
// limit. what describes the value.
func receive[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(limit):
		t.Fatalf("%s did not arrive within %v", what, limit)
		panic("unreachable")
	}
}

// none is what the functions of the cases depend on: nothing.
type none struct{}

// onEvent returns an event function that calls fn.
func onEvent(name string, fn func(context.Context, contract.Event) error, options ...faas.Option) contract.Function {
	var set faas.Set[none]
	faas.OnEvent(&set, name, func(ctx context.Context, _ *none, e contract.Event) error { return fn(ctx, e) }, options...)
	return only(&set)
}

// ask is the input of the request functions of the cases.
type ask struct {
	ID string `json:"id"`
}

func (ask) RoutingKey() string { return "thing.ask" }

// An answer is their output.
type answer struct {
	ID string `json:"id"`
	By string `json:"by"`
}

// onAsk returns a request function that calls fn.
func onAsk(name string, fn func(context.Context, ask) (answer, error), options ...faas.Option) contract.Function {
	var set faas.Set[none]
	faas.OnRequest(&set, name, func(ctx context.Context, _ *none, in ask) (answer, error) { return fn(ctx, in) }, options...)
	return only(&set)
}

func only(set *faas.Set[none]) contract.Function {
	fns, err := set.With(&none{})
	if err != nil || len(fns) != 1 {
		panic("brokertest: the set must have one function")
	}
	return fns[0]
}

// asking returns a call with the input ask.
func asking(id string) contract.Call {
	return contract.Call{Key: ask{}.RoutingKey(), Body: []byte(`{"id":"` + id + `"}`)}
}

// into returns a function that sends the events that it receives to ch.
func into(ch chan<- contract.Event) func(context.Context, contract.Event) error {
	return func(_ context.Context, e contract.Event) error {
		ch <- e
		return nil
	}
}
