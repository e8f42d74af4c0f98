// Package presence broadcasts to all processes of a namespace, by which they
// announce the functions that they host, and discover each other.
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

// Topics that the runtime broadcasts on.
const (
	topicAnnounce = "announce" // a contract.Announcement
	topicDiscover = "discover" // asks every worker to announce itself
	TopicDeclare  = "declare"  // asks every worker to declare again what its functions need
	topicProbe    = "probe"    // received by its sender only, as a check
)

// maxMissed is how many of its own broadcasts in a row a process may miss before
// it assumes that its subscription is lost.
const maxMissed = 3

// discoveryWindow is how long to wait for answers to a discovery.
const discoveryWindow = 300 * time.Millisecond

// Presence sends and receives broadcasts. Every process receives every broadcast,
// its own included. They are neither confirmed nor stored.
type Presence struct {
	cfg     Config
	started time.Time
	host    string

	sending sync.Mutex // held to use channel
	channel *amqp.Channel

	lostSubscription bool // own broadcasts did not arrive; used by receive only

	mu        sync.Mutex
	listeners map[string][]*listener
	hosted    map[*hosting]bool

	Discovered     chan struct{} // closed after the first discovery
	discoverOnce   sync.Once
	receivingSince time.Time // zero while broadcasts are not received
}

type listener struct{ fn func(body []byte) }

// Hosting is the functions of one Serve. A function is added once it consumes.
type hosting struct{ functions []contract.Descriptor }

// Config says what a system needs.
type Config struct {
	Names         topology.Names
	Process       string
	NoBatch       bool                   // announce that workers of this process understand no frames
	Publish       *connection.Connection // to send broadcasts
	Consume       *connection.Connection // to receive broadcasts
	Directory     *contract.Directory    // updated by announcements
	OnWorkersLost func(workers []string) // called with workers that stopped announcing themselves
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

// Run receives broadcasts, announces this process, and removes workers that
// stopped announcing themselves, until ctx is done. Then it announces that this
// process leaves.
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

// Expire removes workers that stopped announcing themselves. It does nothing
// while this process receives no broadcasts or the broker blocks publishers, and
// shortly after that.
func (s *Presence) Expire(now time.Time) {
	s.mu.Lock()
	since := s.receivingSince
	s.mu.Unlock()
	deaf := since.IsZero() || now.Sub(since) <= contract.AnnounceInterval
	if !deaf && !s.cfg.Publish.BlockedSince(now.Add(-contract.AnnounceTimeout)) {
		s.cfg.OnWorkersLost(s.cfg.Directory.Expire(now))
	}
}

// receive receives broadcasts over conn.
func (s *Presence) receive(ctx context.Context, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to receive broadcasts: %w", err)
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
	if s.lostSubscription { // it may have missed a request to declare
		s.lostSubscription = false
		s.dispatch(TopicDeclare, nil)
	}
	silence := time.NewTicker(s.cfg.CheckInterval)
	defer silence.Stop()
	received, asked := true, 0
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
				received, asked = true, 0
			}
			s.dispatch(d.RoutingKey, d.Body)
		case <-silence.C:
			// The broker does not notify of a deleted exchange or binding, but own
			// broadcasts must arrive. Also, the broker notifies only a connection that
			// publishes that it is blocked, and Expire must know that in time.
			if !received && s.Broadcast(topicProbe, nil) == nil {
				asked++
			}
			if received = false; asked > maxMissed {
				s.lostSubscription = true
				return errors.New("this process does not receive its own broadcasts: its queue is declared and bound again")
			}
		}
	}
}

// discover asks every worker to announce itself. Discovered is closed when they
// have had the time to answer, or the broker blocks publishers.
func (s *Presence) discover() {
	err := s.Broadcast(topicDiscover, nil)
	s.mu.Lock()
	receiving := !s.receivingSince.IsZero()
	s.mu.Unlock()
	if receiving && (err == nil || errors.Is(err, contract.ErrBlocked)) {
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

// openSender opens the channel to send broadcasts over.
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
	s.discover() // with whichever of the two connections is established last
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

// Broadcast sends body to every process, or fails immediately.
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

// receiveAnnouncement updates the directory by a worker's announcement.
func (s *Presence) receiveAnnouncement(body []byte) {
	var a contract.Announcement
	if err := json.Unmarshal(body, &a); err != nil || a.Worker == "" {
		s.cfg.Log.Debug("cannot decode an announcement", zap.Error(err))
		return
	}
	s.cfg.Directory.Update(a, time.Now())
}

// announce sends what this process hosts, if it hosts anything.
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
	_ = s.Broadcast(topicAnnounce, body) // repeated with the next tick
}

// Host returns a new Hosting: from now on this process is a worker.
func (s *Presence) Host() *hosting {
	h := &hosting{}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosted[h] = true
	return h
}

// Add adds a function that consumes, and announces it.
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

// Remove removes h, and announces that.
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
