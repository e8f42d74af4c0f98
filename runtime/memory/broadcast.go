package memory

import (
	"bytes"
	"context"
)

// Broadcast tells every process that shares the broker, this one included.
// Best effort: who listens too slowly misses some.
func (b *Broker) Broadcast(_ context.Context, topic string, body []byte) error {
	if err := checkKey(topic); err != nil {
		return err
	}
	body = bytes.Clone(body)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return errClosed()
	}
	b.listeners.tell(topic, body)
	for p := range b.links {
		p.offer(&frame{Kind: told, Topic: topic, Body: body})
	}
	return nil
}

// Listen calls fn with every broadcast on topic (a pattern may be given), one
// at a time, until stop is called.
func (b *Broker) Listen(topic string, fn func(body []byte)) (stop func()) {
	return b.listeners.listen(topic, fn)
}
