package memory

import (
	"context"
	"net"
	"sync"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/deadletter"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/host"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/share"
)

// Share lets other processes on this machine use b with remote.Dial, until ctx is
// done or b is closed. Then it closes their connections and l, and returns nil.
// It returns an error if l fails. A process that can connect to l may do all that
// b can: l should be a unix socket that only its owner may open.
//
// When a process dies, its unsettled events return to their queues without using
// an attempt. Its calls run again on another worker if their function allows
// redelivery; the others fail with ErrLost.
func (b *Broker) Share(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var closing sync.WaitGroup
	defer closing.Wait()
	defer cancel()
	closing.Go(func() {
		select {
		case <-ctx.Done():
		case <-b.closing:
			cancel()
		}
	})
	return share.Serve(ctx, l, shared{b})
}

// shared has the methods of a Broker that only package share calls.
type shared struct{ *Broker }

func (s shared) DeadLetters() deadletter.Store { return deadLetters{s.Broker} }

func (s shared) Subscribe(to share.Subscriber) (unsubscribe func()) { return s.subscribe(to) }

func (s shared) Attach(a contract.Announcement, start func(*host.Run) (cancel func())) (share.Worker, error) {
	w, err := s.attach(a, start)
	if err != nil {
		return nil, err // not w: a nil *worker is not a nil Worker
	}
	return w, nil
}
