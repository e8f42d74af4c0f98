package memory

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Share lets other processes on this machine use b by Dial, until ctx is done
// or b is closed; then it hangs up on them and closes l. Whoever can connect
// to l may do all that b can: give its socket to its owner only.
//
// When a process dies, its unsettled events go back to their queues without
// having burned an attempt, and its calls run again on another worker if their
// function is redelivered; the callers of the others are told that the outcome
// is unknown.
func (b *Broker) Share(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var guests sync.WaitGroup
	defer guests.Wait()
	defer cancel()
	guests.Go(func() {
		select {
		case <-ctx.Done():
		case <-b.closed:
			cancel()
		}
		_ = l.Close() // only ends Accept
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
		guests.Go(func() { b.attend(ctx, conn) })
	}
}

// guest is a process that uses the broker from outside.
type guest struct {
	*peer
	broker *Broker
	ctx    context.Context
	work   sync.WaitGroup

	workers map[uint64]*worker // by the frames' ID; the reader's own

	mu         sync.Mutex
	cancels    map[uint64]context.CancelFunc // of calls and tails
	deliveries map[uint64]*delivery          // by the frames' Run
	last       uint64
}

// attend serves one connection until it is lost or ctx is done.
func (b *Broker) attend(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := &guest{
		peer: newPeer(conn), broker: b, ctx: ctx, workers: map[uint64]*worker{},
		cancels: map[uint64]context.CancelFunc{}, deliveries: map[uint64]*delivery{},
	}
	defer context.AfterFunc(ctx, g.close)()
	g.work.Go(g.write)
	b.admit(g.peer)
	_ = g.read(g.handle) // however it ended, what follows is the same
	b.mu.Lock()
	delete(b.links, g.peer)
	b.mu.Unlock()
	cancel()
	for _, w := range g.workers {
		b.lose(w)
	}
	g.work.Wait()
}

// admit tells p what there is, and from now on whatever changes.
func (b *Broker) admit(p *peer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	gone := contract.Announcement{Worker: "gone"}
	for _, f := range b.directory.Functions() {
		gone.Functions = append(gone.Functions, f.Descriptor)
	}
	left := contract.Announcement{Worker: gone.Worker, Leaving: true}
	p.send(&frame{Kind: announced, Announcement: &gone})
	p.send(&frame{Kind: announced, Announcement: &left})
	for _, w := range b.workers {
		p.send(&frame{Kind: announced, Announcement: &w.announcement})
	}
	p.send(&frame{Kind: welcome})
	b.links[p] = struct{}{}
}

// handle does what one frame asks. Nothing in it waits: a frame that takes
// time gets a goroutine, which ends when the guest cancels it or is gone.
func (g *guest) handle(f *frame) {
	switch {
	case f.Kind == publish && f.Event != nil:
		g.answer(f, nil, g.broker.Publish(g.ctx, *f.Event))
	case f.Kind == request && f.Request != nil:
		ctx, done := g.cancelable(f.ID)
		g.work.Go(func() {
			defer done()
			reply, err := g.broker.Call(ctx, *f.Request)
			g.answer(f, &reply, err)
		})
	case f.Kind == tail:
		ctx, done := g.cancelable(f.ID)
		g.work.Go(func() {
			defer done()
			_ = g.broker.Tail(ctx, f.Topic, func(e contract.Event) { // a closed broker hangs up anyway
				g.offer(&frame{Kind: passed, ID: f.ID, Event: sendable(e)})
			})
		})
	case f.Kind == cancel || f.Kind == untail:
		g.mu.Lock()
		defer g.mu.Unlock()
		if stop := g.cancels[f.ID]; stop != nil {
			stop()
		}
	case f.Kind == broadcast:
		g.answer(f, nil, g.broker.Broadcast(g.ctx, f.Topic, f.Body))
	case f.Kind == dead && f.Dead != nil:
		g.dead(f)
	case f.Kind == serve && f.Announcement != nil:
		a := f.Announcement
		w, err := g.broker.join(a.Worker, a.PID, a.Started, a.Functions, func(d *delivery) { g.deliver(f.ID, d) })
		if err == nil {
			g.workers[f.ID] = w
		}
		g.answer(f, nil, err)
	case f.Kind == leave && g.workers[f.ID] != nil:
		g.broker.leave(g.workers[f.ID])
		g.answer(f, nil, nil)
	case f.Kind == quit && g.workers[f.ID] != nil:
		g.quit(f.ID)
	case f.Kind == outcome && f.Result != nil:
		g.outcome(f)
	}
}

func (g *guest) answer(f *frame, reply *contract.Reply, err error) {
	g.send(&frame{Kind: answered, ID: f.ID, Reply: reply, Failure: failureOf(err)})
}

// cancelable is a ctx that the guest can cancel by id, and what frees it.
func (g *guest) cancelable(id uint64) (ctx context.Context, done func()) {
	ctx, stop := context.WithCancel(g.ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cancels[id] = stop
	return ctx, func() {
		stop()
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.cancels, id)
	}
}

// deliver hands d to the guest's worker. The broker's mutex is held.
func (g *guest) deliver(id uint64, d *delivery) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last++
	number := g.last
	g.deliveries[number] = d
	d.cancel = func() { g.send(&frame{Kind: abort, ID: id, Run: number}) }
	g.send(&frame{
		Kind: deliver, ID: id, Run: number, Function: d.consumer.function.Name,
		Deadline: d.deadline(), Event: sendable(d.event),
	})
}

// outcome settles what the guest ran.
func (g *guest) outcome(f *frame) {
	g.mu.Lock()
	d := g.deliveries[f.Run]
	delete(g.deliveries, f.Run)
	g.mu.Unlock()
	verdict := contract.Decision{Outcome: contract.OutcomeRetry} // of what was taken away from it before
	if d != nil {
		verdict = g.broker.settle(d, result{
			reply: contract.Reply{Body: f.Result.Body, Session: f.Result.Session}, err: f.Result.Failure.error(),
			run: f.Result.Run, returned: f.Result.Returned,
		})
	}
	g.send(&frame{Kind: settled, Run: f.Run, Verdict: &wireVerdict{verdict.Outcome, verdict.After}})
}

// quit takes back what a worker of the guest has not finished.
func (g *guest) quit(id uint64) {
	w := g.workers[id]
	delete(g.workers, id)
	g.broker.lose(w)
	g.mu.Lock()
	defer g.mu.Unlock()
	for number, d := range g.deliveries {
		if d.worker() == w {
			delete(g.deliveries, number)
		}
	}
}

// dialTimeout bounds how long Dial waits for the other end.
const dialTimeout = 5 * time.Second

// Dial connects to the broker that another process on this machine shares at
// path, a unix socket. The connection is not made again when it is lost: the
// broker has died with its process.
func Dial(path string, cfg Config) (*Remote, error) {
	conn, err := net.DialTimeout("unix", path, dialTimeout)
	if err != nil {
		return nil, fmt.Errorf("nobody shares a broker at %s (%w): start one with rabbet dev", path, err)
	}
	r := newRemote(cfg, path, newPeer(conn))
	r.work.Go(r.write)
	r.work.Go(r.listen)
	timeout := time.NewTimer(dialTimeout)
	defer timeout.Stop()
	select {
	case <-r.welcome:
		return r, nil
	case <-r.lost:
		err = r.cause
	case <-timeout.C:
		err = errors.New("it does not answer")
	}
	_ = r.Close() // never fails
	return nil, fmt.Errorf("use the broker shared at %s: %w", path, err)
}
