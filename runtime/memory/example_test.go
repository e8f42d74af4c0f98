package memory_test

import (
	"context"
	"fmt"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/memory"
)

type Greet struct {
	Name string `json:"name"`
}

func (Greet) RoutingKey() string { return "greet" }

// newGreeter returns a request function that greets.
func newGreeter() []contract.Function {
	var set faas.Set[struct{}]
	faas.OnRequest(&set, "greet", func(_ context.Context, _ *struct{}, in Greet) (string, error) {
		return "Hello, " + in.Name, nil
	})
	functions, err := set.With(&struct{}{})
	if err != nil {
		panic(err)
	}
	return functions
}

// A broker hosts functions and calls them, without a server.
func Example() {
	broker := memory.New(memory.Config{})
	defer broker.Close()

	ctx, stop := context.WithCancel(context.Background())
	changed := broker.Directory().Changed()
	served := make(chan error)
	go func() { served <- broker.Serve(ctx, newGreeter()) }() // ends with stop
	<-changed                                                 // the function is hosted

	reply, err := faas.Call[string](ctx, faas.NewBus(broker), Greet{Name: "Ada"})
	fmt.Println(reply, err)

	stop()
	fmt.Println(<-served)
	// Output:
	// Hello, Ada <nil>
	// <nil>
}

// An event that fails permanently becomes a dead letter. Once the reason is gone,
// it can be replayed.
func ExampleBroker_VisitDeadLetters() {
	handled := make(chan contract.Invocation)
	broker := memory.New(memory.Config{Observe: func(i contract.Invocation) { handled <- i }})
	defer broker.Close()

	broken := true
	var set faas.Set[struct{}]
	faas.OnEvent(&set, "print-order", func(_ context.Context, _ *struct{}, e faas.Event) error {
		if broken {
			return faas.Permanent("no paper")
		}
		fmt.Println("printed", e.ID)
		return nil
	}, faas.Keys("order.placed"))
	functions, err := set.With(&struct{}{})
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	changed := broker.Directory().Changed()
	served := make(chan error)
	go func() { served <- broker.Serve(ctx, functions) }() // ends with stop
	<-changed                                              // the function is hosted

	err = broker.Publish(ctx, contract.Event{Key: "order.placed", ID: "order-1"})
	fmt.Println((<-handled).Outcome, err)

	broken = false
	err = broker.VisitDeadLetters(ctx, "print-order", func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		fmt.Println(l.Event.ID, l.Error)
		return contract.ActionReplay, nil
	})
	fmt.Println((<-handled).Outcome, err)

	stop()
	<-served
	// Output:
	// dead <nil>
	// order-1 permanent: no paper
	// printed order-1
	// done <nil>
}
