package memory

import (
	"bytes"
	"context"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/share"
)

// Broadcast sends body to every listener of topic, in this process and in those
// that share the Broker. Delivery is best effort: a listener that is too slow
// misses it. Broadcast fails with ErrInvalid unless topic has 1 to 255 bytes,
// and with ErrUnavailable if the Broker is closed.
func (b *Broker) Broadcast(_ context.Context, topic string, body []byte) error {
	if err := validateKey(topic); err != nil {
		return err
	}
	body = bytes.Clone(body)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errClosed()
	}
	b.listeners.Broadcast(topic, body)
	for s := range b.subscribers {
		s.Broadcast(topic, body)
	}
	return nil
}

// Listen calls fn with every broadcast whose topic matches the pattern topic
// (see contract.Match), one at a time in a goroutine of its own, until stop is
// called or the Broker is closed.
func (b *Broker) Listen(topic string, fn func(body []byte)) (stop func()) {
	return b.listeners.Listen(topic, fn)
}

// announce updates the directory of every process. The caller holds b.mu, which
// keeps the order the same in all of them.
func (b *Broker) announce(a contract.Announcement) {
	b.directory.Update(a, time.Now())
	for s := range b.subscribers {
		s.Announce(a)
	}
}

// subscribe passes the present directory to s, and then each further announcement
// and broadcast, until unsubscribe is called.
func (b *Broker) subscribe(s share.Subscriber) (unsubscribe func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// A worker that hosts every function and leaves makes the functions without
	// workers known, too.
	former := contract.Announcement{Worker: "gone"}
	for _, f := range b.directory.Functions() {
		former.Functions = append(former.Functions, f.Descriptor)
	}
	s.Announce(former)
	s.Announce(contract.Announcement{Worker: former.Worker, Leaving: true})
	for _, w := range b.workers {
		s.Announce(w.announcement)
	}
	b.subscribers[s] = struct{}{}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.subscribers, s)
	}
}
