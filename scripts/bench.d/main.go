// Command bench measures Rabbet against thin baselines that do the same work
// with the same libraries and nothing else. scripts/bench starts it, with the
// services that it needs; each side of a comparison runs as processes of its
// own, which are this program again under another verb.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	verb := "measure"
	if len(os.Args) > 1 {
		verb = os.Args[1]
	}
	run, ok := map[string]func(context.Context) error{
		"measure":         measure,
		"rabbet-worker":   rabbetWorker,
		"baseline-worker": baselineWorker,
		"baseline-front":  baselineFront,
		"baseline-cache":  baselineCache,
		"baseline-map":    baselineMap,
	}[verb]
	if !ok {
		fmt.Fprintf(os.Stderr, "bench: there is no %q: start it with scripts/bench\n", verb)
		os.Exit(2)
	}
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %s: %v\n", verb, err)
		os.Exit(1)
	}
}
