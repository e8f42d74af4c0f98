package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/brokertest/rabbitmq"
)

// timeout is how long nothing may change before what is missing is lost.
const timeout = 2 * time.Minute

// system is all that runs.
type system struct {
	node      *rabbitmq.Node
	proxy     *proxy
	publisher *child
	workers   []*child
	account   *account
	feed      *feed

	mu       sync.Mutex
	happened map[string]int // faults
}

func soak(ctx context.Context, s settings) (err error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	dir, err := os.MkdirTemp("", "rabbet-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintln(os.Stderr, "soak: starting RabbitMQ")
	starting, started := context.WithTimeout(ctx, 3*time.Minute)
	node, err := rabbitmq.Start(starting, rabbitmq.Config{Dir: filepath.Join(dir, "soak")})
	started()
	if err != nil {
		return err
	}
	defer node.Close()
	r, err := newSystem(s, node, fail)
	if err != nil {
		return err
	}
	defer r.proxy.Close()
	defer r.end()

	faulty, calm := context.WithCancel(ctx)
	defer calm()
	var background sync.WaitGroup
	defer background.Wait()
	defer calm()
	background.Go(func() { r.bury(faulty) })
	background.Go(func() { r.progress(faulty) })
	var failing sync.WaitGroup
	failing.Go(func() {
		if err := r.fail(faulty, s.faults, s.every); err != nil {
			fail(err)
		}
	})
	defer failing.Wait()
	defer calm()

	if s.backlog {
		if err := r.fill(ctx); err != nil {
			return err
		}
	} else {
		r.publisher.run()
	}
	for _, w := range r.workers {
		w.run()
	}
	if err := r.settle(ctx); err != nil {
		return err
	}
	fmt.Printf("\nfaults       %s\n", r.faultsSoFar())
	return r.account.balance()
}

// newSystem prepares what runs.
func newSystem(s settings, node *rabbitmq.Node, fail func(error)) (*system, error) {
	broker, err := url.Parse(node.URL())
	if err != nil {
		return nil, err
	}
	p, err := newProxy(broker.Host)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	r := &system{node: node, proxy: p, account: &account{}, happened: map[string]int{}}
	r.feed = newFeed(func(next uint32) bool {
		return s.events > 0 && uint(next) >= s.events || s.length > 0 && time.Since(began) > s.length
	})
	through := *broker
	through.Host = p.Addr().String()
	r.publisher = &child{name: "the publisher", verb: "publish", url: through.String(), started: r.feed.to, failed: fail, reported: func(id uint32) {
		r.account.accept(id)
		r.feed.accepted(id)
	}}
	for i := range s.workers {
		r.workers = append(r.workers, &child{
			name: fmt.Sprintf("worker %d", i+1), verb: "work", url: through.String(), reported: r.account.process, failed: fail,
		})
	}
	return r, nil
}

func (s *system) end() {
	s.feed.end()
	s.publisher.end()
	for _, w := range s.workers {
		w.end()
	}
}

// fullBacklog is when workers start at the latest: an event queue takes 1,000,000
// messages, second copies of events whose confirmation was lost among them.
const fullBacklog = 900_000

// fill publishes everything, or as much as is safe, while no worker runs.
func (s *system) fill(ctx context.Context) error {
	first := &child{name: "a worker", verb: "work", url: s.node.URL(), reported: s.account.process, failed: s.workers[0].failed}
	first.run()
	err := s.await(ctx, s.hasQueue) // which the worker declares
	first.end()
	if err != nil {
		return err
	}
	s.publisher.run()
	return s.await(ctx, func() bool {
		accepted, _, _ := s.account.state()
		return accepted >= fullBacklog || s.feed.isEmpty()
	})
}

func (s *system) hasQueue() bool {
	conn, err := amqp.Dial(s.node.URL())
	if err != nil {
		return false
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return false
	}
	q, err := ch.QueueDeclarePassive(namespace+".event."+function, true, false, false, false, nil)
	return err == nil && q.Consumers > 0
}

func (s *system) await(ctx context.Context, done func() bool) error {
	for !done() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// settle waits until every accepted event is processed or dead, or nothing
// changes any more.
func (s *system) settle(ctx context.Context) error {
	last, at := 0, time.Now()
	for {
		accepted, settled, missing := s.account.state()
		if missing == 0 && s.feed.isEmpty() {
			return nil
		}
		if accepted+settled != last {
			last, at = accepted+settled, time.Now()
		}
		if time.Since(at) > timeout {
			fmt.Fprintf(os.Stderr, "soak: nothing has changed for %v\n", timeout)
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// bury counts the dead letters until ctx is done. It is at the broker itself,
// past the proxy, and comes back when that does.
func (s *system) bury(ctx context.Context) {
	for ctx.Err() == nil {
		_ = s.buryOnce(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (s *system) buryOnce(ctx context.Context) error {
	conn, err := amqp.Dial(s.node.URL())
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Qos(256, 0, false); err != nil {
		return err
	}
	deliveries, err := ch.Consume(namespace+".dead."+function, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	for d := range deliveries {
		id, err := strconv.ParseUint(d.MessageId, 10, 32)
		if err != nil {
			return errors.Join(err, d.Ack(false))
		}
		s.account.bury(uint32(id))
		if err := d.Ack(false); err != nil {
			return err
		}
	}
	return nil
}
