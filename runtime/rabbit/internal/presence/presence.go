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
	hosted    map[*Hosting]bool

	Discovered     chan struct{} // closed after the first discovery
	discoverOnce   sync.Once
	receivingSince time.Time // zero while broadcasts are not received
}

type listener struct{ fn func(body []byte) }

// Hosting is the functions of one Serve. A function is added once it consumes.
type Hosting struct{ functions []contract.Descriptor }

// Config is what a Presence needs. All fields are required.
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

// New returns the Presence of a process. It works while Run runs.
func New(cfg Config) *Presence {
	host, _ := os.Hostname()
	p := &Presence{
		cfg: cfg, started: time.Now(), host: host, Discovered: make(chan struct{}),
		listeners: map[string][]*listener{}, hosted: map[*Hosting]bool{},
	}
	p.Listen(topicAnnounce, p.receiveAnnouncement)
	p.Listen(topicDiscover, func([]byte) { p.announce(false) })
	return p
}

// Run receives broadcasts, announces this process, and removes workers that
// stopped announcing themselves, until ctx is done. Then it announces that this
// process stops.
func (p *Presence) Run(ctx context.Context) {
	var parts sync.WaitGroup
	parts.Go(func() { p.cfg.Consume.Use(ctx, "system", p.receive) })
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	parts.Go(func() { p.cfg.Publish.Use(sending, "broadcast", p.openSender) })
	ticker := time.NewTicker(contract.AnnounceInterval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-ticker.C:
			p.announce(false)
			p.Expire(now)
		}
	}
	p.announce(true)
	stop()
	parts.Wait()
}

// Expire removes workers that stopped announcing themselves. It does nothing
// while this process receives no broadcasts or the broker blocks publishers, and
// shortly after that.
func (p *Presence) Expire(now time.Time) {
	p.mu.Lock()
	since := p.receivingSince
	p.mu.Unlock()
	missing := since.IsZero() || now.Sub(since) <= contract.AnnounceInterval
	if !missing && !p.cfg.Publish.BlockedSince(now.Add(-contract.AnnounceTimeout)) {
		p.cfg.OnWorkersLost(p.cfg.Directory.Expire(now))
	}
}

// receive receives broadcasts over conn.
func (p *Presence) receive(ctx context.Context, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to receive broadcasts: %w", err)
	}
	defer ch.Close()
	if err := p.cfg.Names.Common().Declare(ch); err != nil {
		return err
	}
	deliveries, err := p.cfg.Names.ConsumeOwnQueue(ch, p.cfg.Names.System(), "#")
	if err != nil {
		return err
	}
	p.setReceivingSince(time.Now())
	defer p.setReceivingSince(time.Time{})
	p.discover()
	if p.lostSubscription { // it may have missed a request to declare
		p.lostSubscription = false
		p.dispatch(TopicDeclare, nil)
	}
	silence := time.NewTicker(p.cfg.CheckInterval)
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
			if d.AppId == p.cfg.Process {
				received, asked = true, 0
			}
			p.dispatch(d.RoutingKey, d.Body)
		case <-silence.C:
			// The broker does not notify of a deleted exchange or binding, but own
			// broadcasts must arrive. Also, the broker notifies only a connection that
			// publishes that it is blocked, and Expire must know that in time.
			if !received && p.Broadcast(topicProbe, nil) == nil {
				asked++
			}
			if received = false; asked > maxMissed {
				p.lostSubscription = true
				return errors.New("this process does not receive its own broadcasts: its queue is declared and bound again")
			}
		}
	}
}

// discover asks every worker to announce itself. Discovered is closed when they
// have had the time to answer, or the broker blocks publishers.
func (p *Presence) discover() {
	err := p.Broadcast(topicDiscover, nil)
	p.mu.Lock()
	receiving := !p.receivingSince.IsZero()
	p.mu.Unlock()
	if receiving && (err == nil || errors.Is(err, contract.ErrBlocked)) {
		time.AfterFunc(discoveryWindow, func() { p.discoverOnce.Do(func() { close(p.Discovered) }) })
	}
}

func (p *Presence) setReceivingSince(since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.receivingSince = since
}

func (p *Presence) dispatch(topic string, body []byte) {
	p.mu.Lock()
	listeners := slices.Clone(p.listeners[topic])
	p.mu.Unlock()
	for _, l := range listeners {
		l.fn(body)
	}
}

// Listen calls fn with the body of each broadcast on the topic, one at a time, until
// stop is called. fn must not block.
func (p *Presence) Listen(topic string, fn func(body []byte)) (stop func()) {
	l := &listener{fn}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listeners[topic] = append(p.listeners[topic], l)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.listeners[topic] = slices.DeleteFunc(slices.Clone(p.listeners[topic]), func(o *listener) bool { return o == l })
	}
}

// openSender opens the channel to send broadcasts over.
func (p *Presence) openSender(ctx context.Context, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to broadcast on: %w", err)
	}
	defer channel.Close(ch)
	if err := p.cfg.Names.Common().Declare(ch); err != nil {
		return err
	}
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	p.setChannel(ch)
	defer p.setChannel(nil)
	p.announce(false)
	p.discover() // with whichever of the two connections is established last
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

func (p *Presence) setChannel(ch *amqp.Channel) {
	p.sending.Lock()
	defer p.sending.Unlock()
	p.channel = ch
}

// Broadcast sends body to every process, or fails immediately.
func (p *Presence) Broadcast(topic string, body []byte) error {
	p.sending.Lock()
	defer p.sending.Unlock()
	if reason, blocked := p.cfg.Publish.Blocked(); blocked != nil {
		return &contract.Error{Code: contract.CodeBlocked, Detail: "RabbitMQ takes no messages at present (" + reason + ")", Executed: contract.ExecutedNo}
	}
	if p.channel == nil {
		return &contract.Error{Code: contract.CodeUnavailable, Detail: "there is no connection to the broker", Cause: p.cfg.Publish.Health(), Executed: contract.ExecutedNo}
	}
	err := p.channel.Publish(p.cfg.Names.System(), topic, false, false, amqp.Publishing{Body: body, AppId: p.cfg.Process})
	if err != nil {
		return &contract.Error{Code: contract.CodeUnavailable, Detail: "the broadcast was not sent", Cause: err, Executed: contract.ExecutedNo}
	}
	return nil
}

// receiveAnnouncement updates the directory by a worker's announcement.
func (p *Presence) receiveAnnouncement(body []byte) {
	var a contract.Announcement
	if err := json.Unmarshal(body, &a); err != nil || a.Worker == "" {
		p.cfg.Log.Debug("cannot decode an announcement", zap.Error(err))
		return
	}
	p.cfg.Directory.Update(a, time.Now())
}

// announce sends what this process hosts, if it hosts anything.
func (p *Presence) announce(stopping bool) {
	p.mu.Lock()
	hosts := len(p.hosted) > 0
	var functions []contract.Descriptor
	for h := range p.hosted {
		functions = append(functions, h.functions...)
	}
	p.mu.Unlock()
	if !hosts {
		return
	}
	slices.SortFunc(functions, func(a, b contract.Descriptor) int { return cmp.Compare(a.Name, b.Name) })
	p.sendAnnouncement(functions, stopping)
}

func (p *Presence) sendAnnouncement(functions []contract.Descriptor, stopping bool) {
	a := contract.Announcement{
		Worker: p.cfg.Process, Host: p.host, PID: os.Getpid(), Started: p.started,
		Functions: functions, Batch: !p.cfg.NoBatch, Leaving: stopping,
	}
	body, err := json.Marshal(a)
	if err != nil {
		p.cfg.Log.Error("cannot announce", zap.Error(err))
		return
	}
	_ = p.Broadcast(topicAnnounce, body) // repeated with the next tick
}

// Host returns a new Hosting: from now on this process is a worker.
func (p *Presence) Host() *Hosting {
	h := &Hosting{}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hosted[h] = true
	return h
}

// Add adds a function that consumes, and announces it.
func (p *Presence) Add(h *Hosting, d contract.Descriptor) {
	p.mu.Lock()
	known := slices.ContainsFunc(h.functions, func(o contract.Descriptor) bool { return o.Name == d.Name })
	if !known {
		h.functions = append(slices.Clone(h.functions), d)
	}
	p.mu.Unlock()
	if !known {
		p.announce(false)
	}
}

// Remove removes h, and announces that.
func (p *Presence) Remove(h *Hosting) {
	p.mu.Lock()
	delete(p.hosted, h)
	last := len(p.hosted) == 0
	p.mu.Unlock()
	if last {
		p.sendAnnouncement(nil, true)
		return
	}
	p.announce(false)
}
