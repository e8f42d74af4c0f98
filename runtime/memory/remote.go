package memory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Remote is a broker that another process shares. It has the methods of a
// Broker, which mean the same; once the connection is lost, all of them fail
// with ErrUnavailable, and with ErrUnconfirmed whatever was under way.
type Remote struct {
	*peer
	cfg       Config
	path      string
	directory contract.Directory
	listeners listeners
	work      sync.WaitGroup
	welcome   chan struct{} // closed once the directory is complete
	lost      chan struct{} // closed once the connection is, after cause is set
	cause     error

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan *frame // for answered, by ID
	runs    map[uint64]chan *frame // for settled, by Run
	tails   map[uint64]*feed[contract.Event]
	serves  map[uint64]*remoteWorker
	workers map[string]struct{} // that the directory knows of; the reader's own
}

func newRemote(cfg Config, path string, p *peer) *Remote {
	return &Remote{
		peer: p, cfg: cfg.withDefaults(), path: path,
		welcome: make(chan struct{}), lost: make(chan struct{}),
		waiting: map[uint64]chan *frame{}, runs: map[uint64]chan *frame{},
		tails: map[uint64]*feed[contract.Event]{}, serves: map[uint64]*remoteWorker{},
		workers: map[string]struct{}{},
	}
}

// Directory mirrors the shared broker's. It has no workers once the connection is lost.
func (r *Remote) Directory() *contract.Directory { return &r.directory }

// Ready returns nil, or what is wrong: Dial has already waited for all there is.
func (r *Remote) Ready(context.Context) error { return r.Health() }

// Health returns nil, or an error once the connection is lost or closed.
func (r *Remote) Health() error {
	select {
	case <-r.lost:
		return r.unavailable()
	default:
		return nil
	}
}

// Close hangs up and waits until nothing of the connection is left.
func (r *Remote) Close() error {
	r.close()
	r.work.Wait()
	r.listeners.stop()
	return nil
}

func (r *Remote) unavailable() *contract.Error {
	return &contract.Error{
		Code: contract.CodeUnavailable, Executed: contract.ExecutedNo, Cause: r.cause,
		Detail: fmt.Sprintf("the connection to the broker shared at %s is lost", r.path),
	}
}

func (r *Remote) unconfirmed(cause error) *contract.Error {
	return &contract.Error{
		Code: contract.CodeUnconfirmed, Executed: contract.ExecutedUnknown, Cause: cause,
		Detail: fmt.Sprintf("sent to the broker shared at %s, but its answer is missing", r.path),
	}
}

// Publish is Broker.Publish; ErrUnconfirmed says that ctx was done, or the
// connection lost, before the answer came.
func (r *Remote) Publish(ctx context.Context, e contract.Event) error {
	if err := ctx.Err(); err != nil {
		return &contract.Error{Code: contract.CodeUnavailable, Detail: "nothing was published", Cause: err, Executed: contract.ExecutedNo}
	}
	return r.ask(ctx, &frame{Kind: publish, Event: sendable(e)})
}

// Broadcast is Broker.Broadcast.
func (r *Remote) Broadcast(ctx context.Context, topic string, body []byte) error {
	return r.ask(ctx, &frame{Kind: broadcast, Topic: topic, Body: body})
}

// Listen is Broker.Listen.
func (r *Remote) Listen(topic string, fn func(body []byte)) (stop func()) {
	return r.listeners.listen(topic, fn)
}

// Tail is Broker.Tail.
func (r *Remote) Tail(ctx context.Context, pattern string, fn func(contract.Event)) error {
	events := newFeed[contract.Event]()
	r.mu.Lock()
	r.last++
	id := r.last
	r.tails[id] = events
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.tails, id)
	}()
	if err := r.Health(); err != nil { // looked at after the feed is known to whoever stops it
		return err
	}
	r.send(&frame{Kind: tail, ID: id, Topic: pattern})
	events.each(ctx, fn)
	r.send(&frame{Kind: untail, ID: id})
	return r.Health()
}

// cancelAnswer is how long a caller whose ctx is done waits to hear whether
// its call had started.
const cancelAnswer = time.Second

// Call is Broker.Call.
func (r *Remote) Call(ctx context.Context, req contract.Call) (contract.Reply, error) {
	ctx, stop := untilDeadline(ctx, req)
	defer stop()
	if ctx.Err() != nil {
		return contract.Reply{}, gaveUp(ctx, contract.ExecutedNo)
	}
	req.Deadline, _ = ctx.Deadline()
	id, reply, forget := r.expect(0)
	defer forget()
	if r.Health() != nil {
		return contract.Reply{}, r.unavailable()
	}
	r.send(&frame{Kind: request, ID: id, Request: &req})
	select {
	case f := <-reply:
		return f.replied()
	case <-r.lost:
		return contract.Reply{}, r.unconfirmed(r.cause)
	case <-ctx.Done():
	}
	r.send(&frame{Kind: cancel, ID: id})
	patience := time.NewTimer(cancelAnswer)
	defer patience.Stop()
	executed := contract.ExecutedUnknown
	select {
	case f := <-reply:
		if f.Failure == nil || f.Failure.Code != contract.CodeCanceled {
			return f.replied()
		}
		executed = f.Failure.Executed
	case <-r.lost:
	case <-patience.C:
	}
	return contract.Reply{}, gaveUp(ctx, executed)
}

// replied is what the answer to a call says.
func (f *frame) replied() (contract.Reply, error) {
	if f.Failure != nil || f.Reply == nil {
		return contract.Reply{}, f.Failure.error()
	}
	return *f.Reply, nil
}

// expect returns id (a new one for zero), where its answer will come, and what
// ends waiting for it.
func (r *Remote) expect(id uint64) (_ uint64, answer <-chan *frame, forget func()) {
	ch := make(chan *frame, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if id == 0 {
		r.last++
		id = r.last
	}
	r.waiting[id] = ch
	return id, ch, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.waiting, id)
	}
}

// ask is exchange for what is answered with nothing but success or failure.
func (r *Remote) ask(ctx context.Context, f *frame) error {
	_, err := r.exchange(ctx, f)
	return err
}

// exchange sends f, under a new id if it has none, and waits for the answer.
func (r *Remote) exchange(ctx context.Context, f *frame) (*frame, error) {
	id, answer, forget := r.expect(f.ID)
	defer forget()
	f.ID = id
	if r.Health() != nil {
		return nil, r.unavailable()
	}
	r.send(f)
	select {
	case a := <-answer:
		return a, a.Failure.error()
	case <-r.lost:
		return nil, r.unconfirmed(r.cause)
	case <-ctx.Done():
		return nil, r.unconfirmed(ctx.Err())
	}
}

// listen takes in what the broker sends until the connection is lost, and then
// tells everybody who waits.
func (r *Remote) listen() {
	r.cause = r.read(r.handle)
	if errors.Is(r.cause, io.EOF) {
		r.cause = errors.New("the process that shared it has hung up")
	}
	close(r.lost)
	for w := range r.workers {
		r.directory.Update(contract.Announcement{Worker: w, Leaving: true}, time.Now())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, events := range r.tails {
		events.stop()
	}
}

func (r *Remote) handle(f *frame) {
	switch f.Kind {
	case welcome:
		close(r.welcome)
		return
	case announced:
		r.hear(f.Announcement)
		return
	case told:
		r.listeners.tell(f.Topic, f.Body)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch f.Kind {
	case answered:
		if ch := r.waiting[f.ID]; ch != nil {
			ch <- f
			delete(r.waiting, f.ID)
		}
	case settled:
		if ch := r.runs[f.Run]; ch != nil {
			ch <- f
			delete(r.runs, f.Run)
		}
	case passed:
		if events := r.tails[f.ID]; events != nil && f.Event != nil {
			events.offer(*f.Event)
		}
	case deliver:
		if w := r.serves[f.ID]; w != nil && f.Event != nil {
			w.begin(r, f)
		}
	case abort:
		if w := r.serves[f.ID]; w != nil && w.cancels[f.Run] != nil {
			w.cancels[f.Run]()
		}
	}
}

func (r *Remote) hear(a *contract.Announcement) {
	if a == nil {
		return
	}
	if a.Leaving {
		delete(r.workers, a.Worker)
	} else {
		r.workers[a.Worker] = struct{}{}
	}
	r.directory.Update(*a, time.Now())
}
