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

// Greeted says that somebody was greeted.
type Greeted struct {
	Name string `json:"name"`
}

func (Greeted) RoutingKey() string { return "greeted" }

func ExampleOnRequest() {
	var set faas.Set[Deps]
	faas.OnRequest(&set, "greet", func(_ context.Context, d *Deps, in Greet) (string, error) {
		if in.Name == "" {
			return "", faas.InvalidField("/name", "say a name")
		}
		return d.Greeting + ", " + in.Name, nil
	}, faas.HTTP("GET /greetings/{name}"), faas.Cached(time.Minute))

	fns, err := set.With(&Deps{Greeting: "Hello"})
	if err != nil {
		panic(err)
	}
	for _, body := range []string{`{"name":"Ada"}`, `{"name":""}`, `{"nme":"Ada"}`} {
		reply, err := fns[0].Handle(context.Background(), &faas.Event{Key: "greet", Body: []byte(body)})
		fmt.Println(string(reply), err)
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
	}, faas.Retry{Max: 3}, faas.Concurrency(1))

	fns, err := set.With(&Deps{})
	if err != nil {
		panic(err)
	}
	_, err = fns[0].Handle(context.Background(), &faas.Event{Key: "greeted", Body: []byte(`{"name":"Ada","new":"field"}`)})
	fmt.Println(fns[0].Keys, err)
	// Output:
	// greeted Ada
	// [greeted] <nil>
}

// A function that takes a faas.Event gets the message as it travelled.
func ExampleKeys() {
	var set faas.Set[Deps]
	faas.OnEvent(&set, "audit", func(_ context.Context, _ *Deps, e faas.Event) error {
		fmt.Printf("%s: %s\n", e.Key, e.Body)
		return nil
	}, faas.Keys("order.#"))

	fns, err := set.With(&Deps{})
	if err != nil {
		panic(err)
	}
	_, err = fns[0].Handle(context.Background(), &faas.Event{Key: "order.eu.placed", Body: []byte("raw")})
	fmt.Println(err)
	// Output:
	// order.eu.placed: raw
	// <nil>
}

// Login asks to be known by a name.
type Login struct {
	Name string `json:"name"`
}

func (Login) RoutingKey() string { return "login" }

// At login the session gets a new token; the value is there in the client's next call.
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
	fmt.Printf("%s %s because of %s\n", e.Key, e.Body, e.Causation)
	return nil
}

func (recorder) Call(_ context.Context, _ contract.Call) (faas.Reply, error) {
	return faas.Reply{Body: []byte(`"Hello"`)}, nil
}

func ExampleCall() {
	greeting, err := faas.Call[string](context.Background(), faas.NewBus(recorder{}), Greet{Name: "Ada"})
	fmt.Println(greeting, err)
	// Output: Hello <nil>
}

func ExampleNewBus() {
	ctx := faas.WithMeta(context.Background(), faas.Meta{Function: "greet", ID: "call-7"}) // as in a running function
	err := faas.NewBus(recorder{}).Publish(ctx, Greeted{Name: "Ada"})
	fmt.Println(err)
	// Output:
	// greeted {"name":"Ada"} because of call-7
	// <nil>
}

func ExampleRetryAfter() {
	err := faas.RetryAfter(time.Minute, errors.New("the shop is closed"))
	decision := faas.Retry{}.Decide(err, 1)
	fmt.Println(decision.Outcome, decision.After)
	// Output: retry 1m0s
}
