package rabbit

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// The topics that the runtime itself broadcasts on.
const (
	topicAnnounce = "announce" // a contract.Announcement
	topicDiscover = "discover" // asks every worker to announce itself
	topicDeclare  = "declare"  // asks every worker to declare again what its functions need
	topicProbe    = "probe"    // asks nobody for anything: its sender listens for it
)

// maxUnheard is how many broadcasts of its own in a row a process may miss
// before it takes itself for deaf.
const maxUnheard = 3

// discoveryWindow is how long answers to a discovery are waited for.
const discoveryWindow = 300 * time.Millisecond

// system is the namespace's notice board: every process hears every broadcast,
// its own included. Nothing on it is confirmed or kept.
type system struct {
	b       *Broker
	started time.Time
	host    string

	sending sync.Mutex // broadcasts share a channel
	channel *amqp.Channel

	deaf bool // it was; for consume only

	mu        sync.Mutex
	listeners map[string][]*listener
	hosted    map[*hosting]bool

	heard     chan struct{} // closed after the first discovery
	hearOnce  sync.Once
	consuming time.Time // since when this process hears; zero when it does not
}

type listener struct{ fn func(body []byte) }

// hosting is what one Serve hosts; a function is in it once it consumes.
type hosting struct{ functions []contract.Descriptor }

func newSystem(b *Broker) *system {
	host, _ := os.Hostname()
	s := &system{
		b: b, started: time.Now(), host: host, heard: make(chan struct{}),
		listeners: map[string][]*listener{}, hosted: map[*hosting]bool{},
	}
	s.listen(topicAnnounce, s.hear)
	s.listen(topicDiscover, func([]byte) { s.announce(false) })
	return s
}

// run listens, announces and forgets who has gone silent, until ctx is done;
// then it says goodbye.
func (s *system) run(ctx context.Context) {
	var parts sync.WaitGroup
	parts.Go(func() { s.b.consume.Use(ctx, "system", s.consume) })
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	parts.Go(func() { s.b.publish.Use(sending, "broadcast", s.open) })
	ticker := time.NewTicker(contract.AnnounceInterval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-ticker.C:
			s.announce(false)
			s.lapse(now)
		}
	}
	s.announce(true)
	stop()
	parts.Wait()
}

// lapse forgets silent workers; not while this process is the one that is
// deaf, or the broker blocks, nor right after.
func (s *system) lapse(now time.Time) {
	s.mu.Lock()
	since := s.consuming
	s.mu.Unlock()
	deaf := since.IsZero() || now.Sub(since) <= contract.AnnounceInterval
	if !deaf && !s.b.publish.BlockedSince(now.Add(-contract.AnnounceTimeout)) {
		s.b.caller.workersLost(s.b.directory.Expire(now))
	}
}

// consume hears broadcasts over conn.
func (s *system) consume(ctx context.Context, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to hear broadcasts on: %w", err)
	}
	defer ch.Close()
	if err := s.b.names.Common().Declare(ch); err != nil {
		return err
	}
	deliveries, err := s.b.names.ConsumeOwnQueue(ch, s.b.names.System(), "#")
	if err != nil {
		return err
	}
	s.setConsuming(time.Now())
	defer s.setConsuming(time.Time{})
	s.discover()
	if s.deaf { // meanwhile it may have missed that it was asked to
		s.deaf = false
		s.dispatch(topicDeclare, nil)
	}
	silence := time.NewTicker(s.b.cfg.hearing)
	defer silence.Stop()
	heard, asked := true, 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case d, ok := <-deliveries:
			if !ok {
				return errors.New("the broker ended the consumer of broadcasts")
			}
			_ = d.Ack(false)
			if d.AppId == s.b.cfg.Process {
				heard, asked = true, 0
			}
			s.dispatch(d.RoutingKey, d.Body)
		case <-silence.C:
			// Nobody says when the exchange or the binding is deleted, but what
			// this process says itself must come back. And only to who publishes
			// the broker says that it blocks: lapse has to know in time.
			if !heard && s.broadcast(topicProbe, nil) == nil {
				asked++
			}
			if heard = false; asked > maxUnheard {
				s.deaf = true
				return errors.New("this process does not hear its own broadcasts: its queue is bound anew")
			}
		}
	}
}

// discover asks every worker to announce itself. What can be heard at first has
// been when they have had the time to, or the broker keeps everybody from it.
func (s *system) discover() {
	err := s.broadcast(topicDiscover, nil)
	s.mu.Lock()
	hears := !s.consuming.IsZero()
	s.mu.Unlock()
	if hears && (err == nil || errors.Is(err, contract.ErrBlocked)) {
		time.AfterFunc(discoveryWindow, func() { s.hearOnce.Do(func() { close(s.heard) }) })
	}
}

func (s *system) setConsuming(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.consuming = since
}

func (s *system) dispatch(topic string, body []byte) {
	s.mu.Lock()
	listeners := slices.Clone(s.listeners[topic])
	s.mu.Unlock()
	for _, l := range listeners {
		l.fn(body)
	}
}

func (s *system) listen(topic string, fn func(body []byte)) (stop func()) {
	l := &listener{fn}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners[topic] = append(s.listeners[topic], l)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.listeners[topic] = slices.DeleteFunc(slices.Clone(s.listeners[topic]), func(o *listener) bool { return o == l })
	}
}

// open provides the channel that broadcasts leave by.
func (s *system) open(ctx context.Context, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to broadcast on: %w", err)
	}
	defer channel.Close(ch)
	if err := s.b.names.Common().Declare(ch); err != nil {
		return err
	}
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	s.setChannel(ch)
	defer s.setChannel(nil)
	s.announce(false)
	s.discover() // whichever connection comes up last, it is asked once both are
	select {
	case <-ctx.Done():
		return nil
	case reason := <-closed:
		if reason == nil {
			return nil
		}
		return &channel.ClosedError{What: "the channel of broadcasts", Reason: reason}
	}
}

func (s *system) setChannel(ch *amqp.Channel) {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.channel = ch
}

// broadcast sends body to every process, or fails at once.
func (s *system) broadcast(topic string, body []byte) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	if reason, blocked := s.b.publish.Blocked(); blocked != nil {
		return &contract.Error{Code: contract.CodeBlocked, Detail: "RabbitMQ takes no messages at present (" + reason + ")", Executed: contract.ExecutedNo}
	}
	if s.channel == nil {
		return &contract.Error{Code: contract.CodeUnavailable, Detail: "there is no connection to the broker", Cause: s.b.publish.Health(), Executed: contract.ExecutedNo}
	}
	err := s.channel.Publish(s.b.names.System(), topic, false, false, amqp.Publishing{Body: body, AppId: s.b.cfg.Process})
	if err != nil {
		return &contract.Error{Code: contract.CodeUnavailable, Detail: "the broadcast was not sent", Cause: err, Executed: contract.ExecutedNo}
	}
	return nil
}

// hear takes a worker's announcement in.
func (s *system) hear(body []byte) {
	var a contract.Announcement
	if err := json.Unmarshal(body, &a); err != nil || a.Worker == "" {
		s.b.log.Debug("an announcement that cannot be read", zap.Error(err))
		return
	}
	s.b.directory.Update(a, time.Now())
}

// announce says what this process hosts, if it hosts anything.
func (s *system) announce(leaving bool) {
	s.mu.Lock()
	hosts := len(s.hosted) > 0
	var functions []contract.Descriptor
	for h := range s.hosted {
		functions = append(functions, h.functions...)
	}
	s.mu.Unlock()
	if !hosts {
		return
	}
	slices.SortFunc(functions, func(a, b contract.Descriptor) int { return cmp.Compare(a.Name, b.Name) })
	s.say(functions, leaving)
}

func (s *system) say(functions []contract.Descriptor, leaving bool) {
	a := contract.Announcement{
		Worker: s.b.cfg.Process, Host: s.host, PID: os.Getpid(), Started: s.started,
		Functions: functions, Batch: !s.b.cfg.NoBatch, Leaving: leaving,
	}
	body, err := json.Marshal(a)
	if err != nil {
		s.b.log.Error("cannot announce", zap.Error(err))
		return
	}
	_ = s.broadcast(topicAnnounce, body) // the next tick does it otherwise
}

// hosts opens a hosting: from now on this process is a worker.
func (s *system) hosts() *hosting {
	h := &hosting{}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosted[h] = true
	return h
}

// add announces one more function that consumes.
func (s *system) add(h *hosting, d contract.Descriptor) {
	s.mu.Lock()
	known := slices.ContainsFunc(h.functions, func(o contract.Descriptor) bool { return o.Name == d.Name })
	if !known {
		h.functions = append(slices.Clone(h.functions), d)
	}
	s.mu.Unlock()
	if !known {
		s.announce(false)
	}
}

// leave announces that what h held is hosted here no more.
func (s *system) leave(h *hosting) {
	s.mu.Lock()
	delete(s.hosted, h)
	last := len(s.hosted) == 0
	s.mu.Unlock()
	if last {
		s.say(nil, true)
		return
	}
	s.announce(false)
}
