// Package brokertest says what a broker must do, as tests that every make of
// it has to pass. Each case asserts what a user would notice; none knows how a
// broker works inside. They wait for events, for up to 10 s, and never for time.
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

// Broker is what a make of the contract offers.
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

// Run runs every case as a subtest. open returns a broker as one process has
// it and closes it in t.Cleanup; called again with the same t it returns
// another process's view of the same system (or the same broker, if that is
// all there is), and with another t, another system. With prefixes, only the
// cases run whose names begin with one of them.
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
		meant := func(prefix string) bool { return strings.HasPrefix(c.name, prefix) }
		if len(prefixes) > 0 && !slices.ContainsFunc(prefixes, meant) {
			continue
		}
		t.Run(c.name, func(t *testing.T) { c.run(&system{T: t, open: open, live: map[string]int{}}) })
	}
}

// system is one case's brokers and workers.
type system struct {
	*testing.T
	open    func(t *testing.T) Broker
	brokers []Broker
	live    map[string]int // workers by function
}

// broker opens another process's view and waits until it is ready.
func (s *system) broker() Broker {
	s.Helper()
	b := s.open(s.T)
	if err := b.Ready(s.within()); err != nil {
		s.Fatalf("Ready: %v", err)
	}
	s.brokers = append(s.brokers, b)
	return b
}

// within is a ctx for whatever must be over in time.
func (s *system) within() context.Context {
	ctx, cancel := context.WithTimeout(s.Context(), limit)
	s.Cleanup(cancel)
	return ctx
}

// serve hosts fns in a process of their own, until stop is called or the case
// ends, and waits until every broker of the case knows of it.
func (s *system) serve(fns ...contract.Function) *server {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	v := &server{system: s, fns: fns, broker: s.broker(), cancel: cancel, done: make(chan error, 1)}
	go func() { v.done <- v.broker.Serve(ctx, fns) }()
	s.Cleanup(func() { v.stop() })
	for _, f := range fns {
		s.live[f.Name]++
	}
	s.settle(fns)
	return v
}

// settle waits until every directory of the case counts the workers of fns right.
func (s *system) settle(fns []contract.Function) {
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
					s.Fatalf("the directory counts %d workers of %s, want %d", len(live.Workers), f.Name, s.live[f.Name])
				}
			}
		}
	}
}

// server is one running Serve.
type server struct {
	*system
	fns     []contract.Function
	broker  Broker
	cancel  context.CancelFunc
	done    chan error
	leaving bool
	stopped bool
}

// leave ends the intake and waits until that is known.
func (v *server) leave() {
	v.Helper()
	if v.leaving {
		return
	}
	v.leaving = true
	v.cancel()
	for _, f := range v.fns {
		v.live[f.Name]--
	}
	v.settle(v.fns)
}

// stop ends the worker and waits until it has drained.
func (v *server) stop() {
	v.Helper()
	if v.stopped {
		return
	}
	v.stopped = true
	if !v.leaving {
		v.leaving = true
		v.cancel()
		for _, f := range v.fns {
			v.live[f.Name]--
		}
	}
	if err := receive(v.T, v.done, "the end of Serve"); err != nil {
		v.Errorf("Serve: got %v, want nil after a clean drain", err)
	}
}

// publish publishes, and fails the case if that fails.
func (s *system) publish(b Broker, events ...contract.Event) {
	s.Helper()
	for _, e := range events {
		if err := b.Publish(s.within(), e); err != nil {
			s.Fatalf("publish %s: %v", e.Key, err)
		}
	}
}

// receive returns the next value of ch.
func receive[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(limit):
		t.Fatalf("%s did not come within %v", what, limit)
		panic("unreachable")
	}
}

// none is what the functions of the cases depend on.
type none struct{}

// onEvent makes an event function of fn.
func onEvent(name string, fn func(context.Context, contract.Event) error, options ...faas.Option) contract.Function {
	var set faas.Set[none]
	faas.OnEvent(&set, name, func(ctx context.Context, _ *none, e contract.Event) error { return fn(ctx, e) }, options...)
	return only(&set)
}

// ask is what the request functions of the cases are called with.
type ask struct {
	ID string `json:"id"`
}

func (ask) RoutingKey() string { return "thing.ask" }

// told is what they answer.
type told struct {
	ID string `json:"id"`
	By string `json:"by"`
}

// onAsk makes a request function of fn.
func onAsk(name string, fn func(context.Context, ask) (told, error), options ...faas.Option) contract.Function {
	var set faas.Set[none]
	faas.OnRequest(&set, name, func(ctx context.Context, _ *none, in ask) (told, error) { return fn(ctx, in) }, options...)
	return only(&set)
}

func only(set *faas.Set[none]) contract.Function {
	fns, err := set.With(&none{})
	if err != nil || len(fns) != 1 {
		panic("brokertest: a set of one function has it")
	}
	return fns[0]
}

// asking is a call of ask.
func asking(id string) contract.Call {
	return contract.Call{Key: ask{}.RoutingKey(), Body: []byte(`{"id":"` + id + `"}`)}
}

// into makes a function that sends what it gets to ch.
func into(ch chan<- contract.Event) func(context.Context, contract.Event) error {
	return func(_ context.Context, e contract.Event) error {
		ch <- e
		return nil
	}
}
