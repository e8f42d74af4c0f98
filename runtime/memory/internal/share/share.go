// Package share lets other processes on this machine use the broker of this
// process, over a socket. Package remote is the client.
package share

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/deadletter"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/host"
)

// A Broker can be shared.
type Broker interface {
	contract.Broker
	Tail(ctx context.Context, pattern string, fn func(contract.Event)) error
	Broadcast(ctx context.Context, topic string, body []byte) error
	DeadLetterCounts(ctx context.Context, also ...string) ([]contract.DeadLetterCount, error)
	DeadLetters() deadletter.Store

	// Subscribe passes the present directory to s, as announcements, and then each
	// further announcement and broadcast, until unsubscribe is called.
	Subscribe(s Subscriber) (unsubscribe func())

	// Attach adds a worker with the functions of a. start must start each run that
	// it is called with, without blocking, and return a function that cancels the
	// run, which must not block either. a.Worker is made unique. Attach fails with
	// ErrUnavailable if the broker is closed.
	Attach(a contract.Announcement, start func(*host.Run) (cancel func())) (Worker, error)
}

// A Subscriber receives what concerns all processes. Its methods must not block,
// and must not call the broker.
type Subscriber interface {
	Announce(a contract.Announcement)
	Broadcast(topic string, body []byte)
}

// A Worker hosts functions of a Broker.
type Worker interface {
	// StopDeliveries ends the deliveries to the worker. Its runs go on.
	StopDeliveries()
	// Detach removes the worker. Its unsettled deliveries go to other workers.
	Detach()
}

// Serve lets every process that connects to l use b, until ctx is done. Then it
// closes l and the connections, waits until all of them have ended, and returns
// nil. It returns an error if l fails earlier.
func Serve(ctx context.Context, l net.Listener, b Broker) error {
	ctx, cancel := context.WithCancel(ctx)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	clients.Go(func() {
		<-ctx.Done()
		_ = l.Close() // ends Accept
	})
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("share the broker at %s: %w", l.Addr(), err)
		}
		clients.Go(func() { serveClient(ctx, conn, b) })
	}
}
