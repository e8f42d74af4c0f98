// Package presence broadcasts to all processes of a namespace. Processes announce
// the functions that they host by it, and discover those of others.
package presence

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

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
)

// The topics that the runtime itself broadcasts on.
const (
	topicAnnounce = "announce" // a contract.Announcement
	topicDiscover = "discover" // asks every worker to announce itself
	TopicDeclare  = "declare"  // asks every worker to declare again what its functions need
	topicProbe    = "probe"    // asks nobody for anything: its sender listens for it
)

// maxMissed is how many broadcasts of its own in a row a process may miss
// before it takes itself for deaf.
const maxMissed = 3

// discoveryWindow is how long answers to a discovery are waited for.
const discoveryWindow = 300 * time.Millisecond

// Presence is the namespace's notice board: every process hears every broadcast,
// its own included. Nothing on it is confirmed or kept.
type Presence struct {
	cfg     Config
	started time.Time
	host    string

	sending sync.Mutex // broadcasts share a channel
	channel *amqp.Channel

	lostSubscription bool // it was; for consume only

	mu        sync.Mutex
	listeners map[string][]*listener
	hosted    map[*hosting]bool

	Discovered     chan struct{} // closed after the first discovery
	discoverOnce   sync.Once
	receivingSince time.Time // since when this process hears; zero when it does not
}

type listener struct{ fn func(body []byte) }

// hosting is what one Serve hosts; a function is in it once it consumes.
type hosting struct{ functions []contract.Descriptor }

// Config says what a system needs.
type Config struct {
	Names         topology.Names
	Process       string
	NoBatch       bool                   // announced: workers of this process understand no frames
	Publish       *connection.Connection // broadcasts are sent over it
	Consume       *connection.Connection // and received over this one
	Directory     *contract.Directory    // of announced functions
	OnWorkersLost func(workers []string) // called with workers that announce themselves no more
	CheckInterval time.Duration          // how often to check that own broadcasts arrive
	Log           *zap.Logger
}

func New(cfg Config) *Presence {
	host, _ := os.Hostname()
	s := &Presence{
		cfg: cfg, started: time.Now(), host: host, Discovered: make(chan struct{}),
		listeners: map[string][]*listener{}, hosted: map[*hosting]bool{},
	}
	s.Listen(topicAnnounce, s.receiveAnnouncement)
	s.Listen(topicDiscover, func([]byte) { s.announce(false) })
	return s
}

// Run listens, announces and forgets who has gone silent, until ctx is done;
// then it says goodbye.
func (s *Presence) Run(ctx context.Context) {
	var parts sync.WaitGroup
	parts.Go(func() { s.cfg.Consume.Use(ctx, "system", s.receive) })
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	parts.Go(func() { s.cfg.Publish.Use(sending, "broadcast", s.openSender) })
	ticker := time.NewTicker(contract.AnnounceInterval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-ticker.C:
			s.announce(false)
			s.Expire(now)
		}
	}
	s.announce(true)
	stop()
	parts.Wait()
}

// Expire forgets silent workers; not while this process is the one that is
// deaf, or the broker blocks, nor right after.
func (s *Presence) Expire(now time.Time) {
	s.mu.Lock()
	since := s.receivingSince
	s.mu.Unlock()
	deaf := since.IsZero() || now.Sub(since) <= contract.AnnounceInterval
	if !deaf && !s.cfg.Publish.BlockedSince(now.Add(-contract.AnnounceTimeout)) {
		s.cfg.OnWorkersLost(s.cfg.Directory.Expire(now))
	}
}

// receive hears broadcasts over conn.
func (s *Presence) receive(ctx context.Context, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to hear broadcasts on: %w", err)
	}
	defer ch.Close()
	if err := s.cfg.Names.Common().Declare(ch); err != nil {
		return err
	}
	deliveries, err := s.cfg.Names.ConsumeOwnQueue(ch, s.cfg.Names.System(), "#")
	if err != nil {
		return err
	}
	s.setReceivingSince(time.Now())
	defer s.setReceivingSince(time.Time{})
	s.discover()
	if s.lostSubscription { // meanwhile it may have missed that it was asked to
		s.lostSubscription = false
		s.dispatch(TopicDeclare, nil)
	}
	silence := time.NewTicker(s.cfg.CheckInterval)
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
			if d.AppId == s.cfg.Process {
				heard, asked = true, 0
			}
			s.dispatch(d.RoutingKey, d.Body)
		case <-silence.C:
			// Nobody says when the exchange or the binding is deleted, but what
			// this process says itself must come back. And only to who publishes
			// the broker says that it blocks: lapse has to know in time.
			if !heard && s.Broadcast(topicProbe, nil) == nil {
				asked++
			}
			if heard = false; asked > maxMissed {
				s.lostSubscription = true
				return errors.New("this process does not hear its own broadcasts: its queue is bound anew")
			}
		}
	}
}

// discover asks every worker to announce itself. What can be heard at first has
// been when they have had the time to, or the broker keeps everybody from it.
func (s *Presence) discover() {
	err := s.Broadcast(topicDiscover, nil)
	s.mu.Lock()
	hears := !s.receivingSince.IsZero()
	s.mu.Unlock()
	if hears && (err == nil || errors.Is(err, contract.ErrBlocked)) {
		time.AfterFunc(discoveryWindow, func() { s.discoverOnce.Do(func() { close(s.Discovered) }) })
	}
}

func (s *Presence) setReceivingSince(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.receivingSince = since
}

func (s *Presence) dispatch(topic string, body []byte) {
	s.mu.Lock()
	listeners := slices.Clone(s.listeners[topic])
	s.mu.Unlock()
	for _, l := range listeners {
		l.fn(body)
	}
}

func (s *Presence) Listen(topic string, fn func(body []byte)) (stop func()) {
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

// openSender provides the channel that broadcasts leave by.
func (s *Presence) openSender(ctx context.Context, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to broadcast on: %w", err)
	}
	defer channel.Close(ch)
	if err := s.cfg.Names.Common().Declare(ch); err != nil {
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

func (s *Presence) setChannel(ch *amqp.Channel) {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.channel = ch
}

// Broadcast sends body to every process, or fails at once.
func (s *Presence) Broadcast(topic string, body []byte) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	if reason, blocked := s.cfg.Publish.Blocked(); blocked != nil {
		return &contract.Error{Code: contract.CodeBlocked, Detail: "RabbitMQ takes no messages at present (" + reason + ")", Executed: contract.ExecutedNo}
	}
	if s.channel == nil {
		return &contract.Error{Code: contract.CodeUnavailable, Detail: "there is no connection to the broker", Cause: s.cfg.Publish.Health(), Executed: contract.ExecutedNo}
	}
	err := s.channel.Publish(s.cfg.Names.System(), topic, false, false, amqp.Publishing{Body: body, AppId: s.cfg.Process})
	if err != nil {
		return &contract.Error{Code: contract.CodeUnavailable, Detail: "the broadcast was not sent", Cause: err, Executed: contract.ExecutedNo}
	}
	return nil
}

// receiveAnnouncement takes a worker's announcement in.
func (s *Presence) receiveAnnouncement(body []byte) {
	var a contract.Announcement
	if err := json.Unmarshal(body, &a); err != nil || a.Worker == "" {
		s.cfg.Log.Debug("an announcement that cannot be read", zap.Error(err))
		return
	}
	s.cfg.Directory.Update(a, time.Now())
}

// announce says what this process hosts, if it hosts anything.
func (s *Presence) announce(leaving bool) {
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
	s.sendAnnouncement(functions, leaving)
}

func (s *Presence) sendAnnouncement(functions []contract.Descriptor, leaving bool) {
	a := contract.Announcement{
		Worker: s.cfg.Process, Host: s.host, PID: os.Getpid(), Started: s.started,
		Functions: functions, Batch: !s.cfg.NoBatch, Leaving: leaving,
	}
	body, err := json.Marshal(a)
	if err != nil {
		s.cfg.Log.Error("cannot announce", zap.Error(err))
		return
	}
	_ = s.Broadcast(topicAnnounce, body) // the next tick does it otherwise
}

// Host opens a hosting: from now on this process is a worker.
func (s *Presence) Host() *hosting {
	h := &hosting{}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosted[h] = true
	return h
}

// Add announces one more function that consumes.
func (s *Presence) Add(h *hosting, d contract.Descriptor) {
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

// Remove announces that what h held is hosted here no more.
func (s *Presence) Remove(h *hosting) {
	s.mu.Lock()
	delete(s.hosted, h)
	last := len(s.hosted) == 0
	s.mu.Unlock()
	if last {
		s.sendAnnouncement(nil, true)
		return
	}
	s.announce(false)
}
