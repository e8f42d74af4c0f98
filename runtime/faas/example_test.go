package faas_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// Deps is what the functions of the examples may use.
type Deps struct{ Greeting string }

// Greet asks for a greeting.
type Greet struct {
	Name string `json:"name"`
}

func (Greet) RoutingKey() string { return "greet" }

// Greeted is published after a greeting.
type Greeted struct {
	Name string `json:"name"`
}

func (Greeted) RoutingKey() string { return "greeted" }

// deliver runs the only function of the set on a message, as a worker does.
func deliver(set *faas.Set[Deps], e faas.Event) (string, error) {
	fns, err := set.With(&Deps{Greeting: "Hello"})
	if err != nil {
		return "", err
	}
	reply, err := fns[0].Run(context.Background(), &e, time.Time{})
	return string(reply.Body), err
}

func ExampleOnRequest() {
	var set faas.Set[Deps]
	faas.OnRequest(&set, "greet", func(_ context.Context, d *Deps, in Greet) (string, error) {
		if in.Name == "" {
			return "", faas.InvalidField("/name", "say a name")
		}
		return d.Greeting + ", " + in.Name, nil
	})

	for _, body := range []string{`{"name":"Ada"}`, `{"name":""}`, `{"nme":"Ada"}`} {
		fmt.Println(deliver(&set, faas.Event{Key: "greet", Body: []byte(body)}))
	}
	// Output:
	// "Hello, Ada" <nil>
	//  invalid: the input does not fit; /name: say a name
	//  invalid: the input does not fit; /nme: there is no such field; /name: it is required: json: unknown field "nme"
}

func ExampleOnEvent() {
	var set faas.Set[Deps]
	faas.OnEvent(&set, "count-greetings", func(_ context.Context, _ *Deps, in Greeted) error {
		fmt.Println("greeted", in.Name)
		return nil
	})

	_, err := deliver(&set, faas.Event{Key: "greeted", Body: []byte(`{"name":"Ada","new":"field"}`)})
	fmt.Println(err)
	// Output:
	// greeted Ada
	// <nil>
}

// A function that takes a faas.Event gets the message as it travelled.
func ExampleKeys() {
	var set faas.Set[Deps]
	faas.OnEvent(&set, "audit", func(_ context.Context, _ *Deps, e faas.Event) error {
		fmt.Printf("%s: %s\n", e.Key, e.Body)
		return nil
	}, faas.Keys("order.#"))

	_, err := deliver(&set, faas.Event{Key: "order.placed", Body: []byte(`{"id":"7"}`)})
	fmt.Println(set.Descriptors()[0].Keys, err)
	// Output:
	// order.placed: {"id":"7"}
	// [order.#] <nil>
}

// One function can react to several types of message.
func ExampleAlso() {
	var set faas.Set[Deps]
	faas.OnEvent(&set, "tally",
		func(_ context.Context, _ *Deps, in Greeted) error { fmt.Println("greeted", in.Name); return nil },
		faas.Also(func(_ context.Context, _ *Deps, in Greet) error { fmt.Println("asked for", in.Name); return nil }))

	for _, key := range []string{"greet", "greeted"} {
		if _, err := deliver(&set, faas.Event{Key: key, Body: []byte(`{"name":"Ada"}`)}); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// asked for Ada
	// greeted Ada
}

// The path fills the field name of the message. What cannot work is told with
// its place, before anything runs.
func ExampleHTTP() {
	greet := func(_ context.Context, _ *Deps, in Greet) (string, error) { return "Hello, " + in.Name, nil }

	var set faas.Set[Deps]
	faas.OnRequest(&set, "greet", greet, faas.HTTP("GET /greetings/{name}"))
	route := set.Descriptors()[0].Route
	fmt.Println(route.Method, route.Path, route.Status, set.Err())

	var wrong faas.Set[Deps]
	faas.OnRequest(&wrong, "greet", greet, faas.HTTP("/greetings/{name}"))
	fmt.Println(wrong.Err() != nil)
	// Output:
	// GET /greetings/{name} 200 <nil>
	// true
}

// A result is served again for five minutes, unless somebody invalidates the
// tag "greeting:Ada" before.
func ExampleCached() {
	var set faas.Set[Deps]
	faas.OnRequest(&set, "greet", func(_ context.Context, d *Deps, in Greet) (string, error) {
		return d.Greeting + ", " + in.Name, nil
	}, faas.HTTP("GET /greetings/{name}"), faas.Cached(5*time.Minute, "greeting:{name}"))

	policy := set.Descriptors()[0].Cache
	fmt.Println(policy.TTL, policy.Tags)
	// Output: 5m0s [greeting:{name}]
}

// A CachePolicy says more than Cached: here a result may be served for another
// hour while the function fails.
func ExampleCachePolicy() {
	var set faas.Set[Deps]
	faas.OnRequest(&set, "greet", func(_ context.Context, d *Deps, in Greet) (string, error) {
		return d.Greeting + ", " + in.Name, nil
	}, faas.CachePolicy{TTL: time.Minute, Tags: []string{"greeting:{name}"}, StaleIfError: time.Hour})

	fmt.Println(set.Descriptors()[0].Cache.StaleIfError, set.Err())
	// Output: 1h0m0s <nil>
}

// Two deliveries with the same name count as one event, even if they have
// different ids.
func ExampleOnce() {
	var set faas.Set[Deps]
	faas.OnEvent(&set, "send-card", func(context.Context, *Deps, Greeted) error { return nil }, faas.Once("card:{name}"))

	once := set.Descriptors()[0].Once
	for _, id := range []string{"1", "2"} {
		key, err := once.KeyOf(&faas.Event{ID: id, Body: []byte(`{"name":"Ada"}`)})
		fmt.Println(key, err)
	}
	// Output:
	// card:Ada <nil>
	// card:Ada <nil>
}

// An ordered function handles one event at a time, in the order in which the
// events were published.
func ExampleOrdered() {
	var set faas.Set[Deps]
	faas.OnEvent(&set, "book", func(context.Context, *Deps, Greeted) error { return nil }, faas.Ordered(), faas.Retry{Max: 20})

	d := set.Descriptors()[0]
	fmt.Println(d.Ordered, d.Concurrency, set.Err())
	// Output: true 1 <nil>
}

// The event is tried again after 1 s and 2 s, more or less, and becomes a dead
// letter after the third failure. A permanent error is not tried again.
func ExampleRetry() {
	policy := faas.Retry{Max: 3, First: time.Second}
	var set faas.Set[Deps]
	faas.OnEvent(&set, "send-card", func(context.Context, *Deps, Greeted) error { return nil }, policy)

	fmt.Println(policy.Decide(errors.New("refused"), 1).Outcome)
	fmt.Println(policy.Decide(errors.New("refused"), 3).Outcome)
	fmt.Println(policy.Decide(faas.NotFound("no such order"), 1).Outcome)
	// Output:
	// retry
	// dead
	// dead
}

// Next chooses the wait by the error.
func ExampleRetry_next() {
	closed := errors.New("the shop is closed")
	policy := faas.Retry{Next: func(attempt int, err error) (time.Duration, bool) {
		if errors.Is(err, closed) {
			return time.Hour, true
		}
		return time.Duration(attempt) * time.Second, attempt < 3
	}}

	for _, d := range []contract.Decision{policy.Decide(closed, 1), policy.Decide(errors.New("busy"), 2), policy.Decide(errors.New("busy"), 3)} {
		fmt.Println(d.Outcome, d.After)
	}
	// Output:
	// retry 1h0m0s
	// retry 2s
	// dead 0s
}

func ExampleRetryAfter() {
	err := faas.RetryAfter(time.Minute, errors.New("the shop is closed"))
	decision := faas.Retry{}.Decide(err, 1)
	fmt.Println(decision.Outcome, decision.After)
	// Output: retry 1m0s
}

// The policy of a whole set, for the event functions that have none of their own.
func ExampleSet_retry() {
	all := faas.Set[Deps]{Retry: faas.Retry{Max: 5}}
	faas.OnEvent(&all, "send-card", func(context.Context, *Deps, Greeted) error { return nil })
	faas.OnEvent(&all, "send-parcel", func(context.Context, *Deps, Greeted) error { return nil }, faas.Retry{Max: 30})

	for _, d := range all.Descriptors() {
		fmt.Println(d.Name, d.Retry.Max)
	}
	// Output:
	// send-card 5
	// send-parcel 30
}

// A middleware runs around every function of the set.
func ExampleSet_Use() {
	var all faas.Set[Deps]
	all.Use(func(next faas.Handler) faas.Handler {
		return func(ctx context.Context, e *faas.Event) ([]byte, error) {
			fmt.Println("begin", faas.MetaOf(ctx).Function)
			body, err := next(ctx, e)
			fmt.Println("end", err)
			return body, err
		}
	})
	faas.OnRequest(&all, "greet", func(_ context.Context, d *Deps, in Greet) (string, error) {
		return d.Greeting + ", " + in.Name, nil
	})

	fmt.Println(deliver(&all, faas.Event{Key: "greet", Body: []byte(`{"name":"Ada"}`)}))
	// Output:
	// begin greet
	// end <nil>
	// "Hello, Ada" <nil>
}

// Login logs a client in.
type Login struct {
	Name string `json:"name"`
}

func (Login) RoutingKey() string { return "login" }

// login remembers the user in the session of the client.
func login(ctx context.Context, _ *Deps, in Login) (string, error) {
	session := faas.Session(ctx)
	var before string
	if found, err := session.Get("user", &before); err != nil {
		return "", err
	} else if found {
		return "", faas.Conflict("you are %s already", before)
	}
	session.Renew()
	return "Welcome, " + in.Name, session.Set("user", in.Name)
}

func ExampleSession() {
	var set faas.Set[Deps]
	faas.OnRequest(&set, "login", login, faas.HTTP("POST /login"), faas.UsesSession())

	session := faas.NewSession(nil) // as a test of the function does
	ctx := faas.WithSession(context.Background(), session)
	fmt.Println(login(ctx, &Deps{}, Login{Name: "Ada"}))
	change := session.Change()
	fmt.Println(string(change.Set["user"]), change.Renew)
	fmt.Println(login(ctx, &Deps{}, Login{Name: "Eve"}))
	// Output:
	// Welcome, Ada <nil>
	// "Ada" true
	//  conflict: you are Ada already
}

// recorder is a broker for a test.
type recorder struct{}

func (recorder) Publish(_ context.Context, e faas.Event) error {
	fmt.Printf("%s %s because of %q\n", e.Key, e.Body, e.Causation)
	return nil
}

func (recorder) Call(_ context.Context, c contract.Call) (faas.Reply, error) {
	if c.Key != "greet" {
		return faas.Reply{}, faas.ErrUnroutable
	}
	return faas.Reply{Body: []byte(`"Hello"`)}, nil
}

func ExampleCall() {
	bus := faas.NewBus(recorder{}) // a function has its bus in Deps
	greeting, err := faas.Call[string](context.Background(), bus, Greet{Name: "Ada"})
	fmt.Println(greeting, err)

	_, err = faas.Call[string](context.Background(), bus, Login{Name: "Ada"})
	fmt.Println(errors.Is(err, faas.ErrUnroutable))
	// Output:
	// Hello <nil>
	// true
}

func ExampleNewBus() {
	ctx := faas.WithMeta(context.Background(), faas.Meta{Function: "greet", ID: "call-7"}) // as in a running function
	err := faas.NewBus(recorder{}).Publish(ctx, Greeted{Name: "Ada"})
	fmt.Println(err)
	// Output:
	// greeted {"name":"Ada"} because of "call-7"
	// <nil>
}

// The event is delivered in a day and a half.
func ExampleIn() {
	e, err := faas.NewEvent(context.Background(), Greeted{Name: "Ada"}, faas.In(36*time.Hour))
	fmt.Println(time.Until(e.NotBefore).Round(time.Hour), err)
	// Output: 36h0m0s <nil>
}

// What an error means is said by how it is made.
func ExampleNotFound() {
	err := fmt.Errorf("greet: %w", faas.NotFound("no user %q", "ada"))
	fmt.Println(err)
	fmt.Println(errors.Is(err, faas.ErrNotFound), faas.AsError(err).Permanent())
	// Output:
	// greet: not-found: no user "ada"
	// true true
}

func ExampleInvalidField() {
	err := faas.AsError(faas.InvalidField("/email", "%q has no @", "ada"))
	fmt.Println(err.Code, err.Fields[0].Pointer, err.Fields[0].Detail)
	// Output: invalid /email "ada" has no @
}

// The errors of stores and services keep their cause for the log.
func ExamplePermanent() {
	closed := errors.New("account closed")
	err := faas.Permanent("charge %s: %w", "order 7", closed)
	fmt.Println(err, errors.Is(err, closed))
	// Output: permanent: charge order 7: account closed true
}
