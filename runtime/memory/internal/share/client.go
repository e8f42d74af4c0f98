package share

import (
	"context"
	"net"
	"sync"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/host"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/wire"
)

// A client is a process that is connected.
type client struct {
	*wire.Conn
	broker  Broker
	ctx     context.Context // done when the connection is lost
	work    sync.WaitGroup
	workers map[uint64]Worker // by Frame.ID; used only by handle

	mu      sync.Mutex
	cancels map[uint64]context.CancelFunc // of calls and tails, by Frame.ID
	runs    map[uint64]*delivery          // unsettled, by Frame.Run
	lastRun uint64
}

// A delivery is a run that a worker of the client has and has not settled.
type delivery struct {
	run    *host.Run
	worker uint64
}

// serveClient serves one connection until it is lost or ctx is done.
func serveClient(ctx context.Context, conn net.Conn, b Broker) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &client{
		Conn: wire.NewConn(conn), broker: b, ctx: ctx,
		workers: map[uint64]Worker{}, cancels: map[uint64]context.CancelFunc{}, runs: map[uint64]*delivery{},
	}
	defer context.AfterFunc(ctx, c.Close)()
	c.work.Go(c.Write)
	unsubscribe := b.Subscribe(subscriber{c.Conn})
	c.Send(&wire.Frame{Kind: wire.Welcome})
	_ = c.Read(c.handle) // for whatever reason it ends
	unsubscribe()
	cancel()
	for _, w := range c.workers {
		w.Detach()
	}
	c.work.Wait()
}

// A subscriber sends announcements and broadcasts over a connection.
type subscriber struct{ conn *wire.Conn }

func (s subscriber) Announce(a contract.Announcement) {
	s.conn.Send(&wire.Frame{Kind: wire.Announced, Announcement: &a})
}

func (s subscriber) Broadcast(topic string, body []byte) {
	s.conn.Offer(&wire.Frame{Kind: wire.BroadcastMessage, Topic: topic, Body: body})
}

// handle does what f asks for. It never blocks: what takes time runs in a
// goroutine, which ends when the client cancels it or its connection is lost.
func (c *client) handle(f *wire.Frame) {
	switch {
	case f.Kind == wire.Publish && f.Event != nil:
		c.answer(f, nil, c.broker.Publish(c.ctx, *f.Event))
	case f.Kind == wire.Call && f.Request != nil:
		c.goCancelable(f.ID, func(ctx context.Context) {
			reply, err := c.broker.Call(ctx, *f.Request)
			c.answer(f, &reply, err)
		})
	case f.Kind == wire.StartTail:
		c.goCancelable(f.ID, func(ctx context.Context) {
			// An error says that the broker is closed. Then the connection is, too.
			_ = c.broker.Tail(ctx, f.Topic, func(e contract.Event) {
				c.Offer(&wire.Frame{Kind: wire.TailEvent, ID: f.ID, Event: wire.Encodable(e)})
			})
		})
	case f.Kind == wire.CancelCall || f.Kind == wire.StopTail:
		c.cancel(f.ID)
	case f.Kind == wire.Broadcast:
		c.answer(f, nil, c.broker.Broadcast(c.ctx, f.Topic, f.Body))
	case f.Kind == wire.DeadLetterRequest && f.Dead != nil:
		c.visitDeadLetter(f)
	case f.Kind == wire.StartWorker && f.Announcement != nil:
		c.startWorker(f)
	case f.Kind == wire.StopDeliveries && c.workers[f.ID] != nil:
		c.workers[f.ID].StopDeliveries()
		c.answer(f, nil, nil)
	case f.Kind == wire.EndWorker && c.workers[f.ID] != nil:
		c.endWorker(f.ID)
	case f.Kind == wire.Settle && f.Result != nil:
		c.settle(f)
	}
}

func (c *client) answer(f *wire.Frame, reply *contract.Reply, err error) {
	c.Send(&wire.Frame{Kind: wire.Answer, ID: f.ID, Reply: reply, Failure: wire.NewFailure(err)})
}

// goCancelable runs fn in a goroutine, with a ctx that cancel(id) cancels.
func (c *client) goCancelable(id uint64, fn func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(c.ctx)
	c.mu.Lock()
	c.cancels[id] = cancel
	c.mu.Unlock()
	c.work.Go(func() {
		defer func() {
			cancel()
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.cancels, id)
		}()
		fn(ctx)
	})
}

func (c *client) cancel(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel := c.cancels[id]; cancel != nil {
		cancel()
	}
}

// startWorker attaches a worker, whose functions run in the client.
func (c *client) startWorker(f *wire.Frame) {
	w, err := c.broker.Attach(*f.Announcement, func(r *host.Run) (cancel func()) { return c.deliver(f.ID, r) })
	if err == nil {
		c.workers[f.ID] = w
	}
	c.answer(f, nil, err)
}

// deliver sends r to a worker of the client.
func (c *client) deliver(worker uint64, r *host.Run) (cancel func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastRun++
	number := c.lastRun
	c.runs[number] = &delivery{run: r, worker: worker}
	c.Send(&wire.Frame{
		Kind: wire.Deliver, ID: worker, Run: number, Function: r.Function,
		Deadline: r.Deadline, Event: wire.Encodable(r.Event),
	})
	return func() { c.Send(&wire.Frame{Kind: wire.CancelRun, ID: worker, Run: number}) }
}

// settle settles a run of the client. A run that is not known any more was taken
// from its worker.
func (c *client) settle(f *wire.Frame) {
	c.mu.Lock()
	d := c.runs[f.Run]
	delete(c.runs, f.Run)
	c.mu.Unlock()
	decision := contract.Decision{Outcome: contract.OutcomeRetry}
	if d != nil {
		decision = d.run.Settle(host.Result{
			Reply: contract.Reply{Body: f.Result.Body, Session: f.Result.Session}, Err: f.Result.Failure.Err(),
			Run: f.Result.Run, Interrupted: f.Result.Returned,
			Decision: contract.Decision{
				Outcome: f.Result.Decision.Outcome, After: f.Result.Decision.After, Attempt: f.Result.Decision.Attempt,
				Err: contract.AsError(f.Result.Decision.Failure.Err()),
			},
		})
	}
	c.Send(&wire.Frame{Kind: wire.Settled, Run: f.Run, Verdict: &wire.Decision{Outcome: decision.Outcome, After: decision.After}})
}

// endWorker detaches a worker, and with it what it has not settled.
func (c *client) endWorker(id uint64) {
	c.workers[id].Detach()
	delete(c.workers, id)
	c.mu.Lock()
	defer c.mu.Unlock()
	for number, d := range c.runs {
		if d.worker == id {
			delete(c.runs, number)
		}
	}
}

func (c *client) visitDeadLetter(f *wire.Frame) {
	var answer wire.DeadLetters
	var err error
	letters := c.broker.DeadLetters()
	switch q := f.Dead; q.Asks {
	case wire.CountLetters:
		answer.Functions, err = c.broker.DeadLetterCounts(c.ctx)
	case wire.LetterNumbers:
		answer.Numbers, err = letters.Numbers(c.ctx, q.Function)
	case wire.ReadLetter:
		if answer.Letter, err = letters.Read(c.ctx, q.Function, q.Number); answer.Letter != nil {
			answer.Letter.Event = *wire.Encodable(answer.Letter.Event)
		}
	case wire.SettleLetter:
		err = letters.Settle(c.ctx, q.Function, q.Number, q.Fate, q.Body)
	}
	c.Send(&wire.Frame{Kind: wire.Answer, ID: f.ID, Dead: &answer, Failure: wire.NewFailure(err)})
}
