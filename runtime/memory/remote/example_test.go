package remote_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/memory"
	"github.com/rabbet-fn/rabbet/runtime/memory/remote"
)

type Greet struct {
	Name string `json:"name"`
}

func (Greet) RoutingKey() string { return "greet" }

// One process has the broker; others host functions and call them. Here, all of
// them are the same process.
func ExampleDial() {
	// The process with the broker.
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "broker")
	l, err := net.Listen("unix", socket)
	if err != nil {
		panic(err)
	}
	broker := memory.New(memory.Config{})
	ctx, stop := context.WithCancel(context.Background())
	shared := make(chan error)
	go func() { shared <- broker.Share(ctx, l) }() // ends with stop

	// A process that hosts a function.
	worker, err := remote.Dial(socket, remote.Config{})
	if err != nil {
		panic(err)
	}
	var set faas.Set[struct{}]
	faas.OnRequest(&set, "greet", func(_ context.Context, _ *struct{}, in Greet) (string, error) {
		return "Hello, " + in.Name, nil
	})
	functions, err := set.With(&struct{}{})
	if err != nil {
		panic(err)
	}
	changed := broker.Directory().Changed()
	serving, stopWorker := context.WithCancel(ctx)
	served := make(chan error)
	go func() { served <- worker.Serve(serving, functions) }() // ends with stopWorker
	<-changed                                                  // the function is hosted

	// A process that calls it.
	caller, err := remote.Dial(socket, remote.Config{})
	if err != nil {
		panic(err)
	}
	reply, err := faas.Call[string](ctx, faas.NewBus(caller), Greet{Name: "Ada"})
	fmt.Println(reply, err)

	stopWorker()
	fmt.Println(<-served)
	worker.Close()
	caller.Close()
	stop()
	fmt.Println(<-shared)
	broker.Close()
	// Output:
	// Hello, Ada <nil>
	// <nil>
	// <nil>
}
