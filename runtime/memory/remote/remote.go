// Package remote uses a memory.Broker of another process on this machine, over
// the unix socket at which that process shares it (see memory.Broker.Share).
// This is how 'rabbet dev' hosts functions in a child process. It knows nothing
// of the broker except the protocol.
package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/feed"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/wire"
)

// Config says how a Broker behaves. The zero Config is valid.
type Config struct {
	Process string            // unique id of this process and of its worker; default: contract.NewID()
	Grace   time.Duration     // how long Serve lets running functions finish; default: 25 s
	Observe contract.Observer // called after every run; nil: runs are not observed
}

func (c Config) withDefaults() Config {
	c.Process = cmp.Or(c.Process, contract.NewID())
	c.Grace = cmp.Or(c.Grace, 25*time.Second)
	if c.Observe == nil {
		c.Observe = func(contract.Invocation) {}
	}
	return c
}

// A Broker is the broker of another process. Its methods do the same as those of
// a memory.Broker. Once the connection is lost, they fail with ErrUnavailable;
// those that were waiting for an answer fail with ErrUnconfirmed. Create it with
// Dial. Its methods are safe for concurrent use.
type Broker struct {
	cfg       Config
	path      string
	conn      *wire.Conn
	directory contract.Directory
	listeners feed.Listeners
	work      sync.WaitGroup      // the goroutines that read and write
	workers   map[string]struct{} // those in the directory; used only by the goroutine that reads

	welcome chan struct{} // closed when the directory is complete
	lost    chan struct{} // closed when the connection is lost, after cause is set
	cause   error

	mu      sync.Mutex
	lastID  uint64
	answers map[uint64]chan *wire.Frame // for requests that wait for an Answer, by Frame.ID
	settled map[uint64]chan *wire.Frame // for runs that wait for a Settled, by Frame.Run
	tails   map[uint64]*feed.Feed[contract.Event]
	serves  map[uint64]*worker
}

// dialTimeout limits how long Dial waits: for the connection, and then for the
// directory.
const dialTimeout = 5 * time.Second

// Dial connects to the broker that is shared at path, a unix socket, and waits
// for its directory, for at most 5 s. A lost connection is not established again:
// the queues were lost with the process that had them.
func Dial(path string, cfg Config) (*Broker, error) {
	conn, err := net.DialTimeout("unix", path, dialTimeout)
	if err != nil {
		return nil, fmt.Errorf("no broker is shared at %s (%w): start one with rabbet dev", path, err)
	}
	b := &Broker{
		cfg: cfg.withDefaults(), path: path, conn: wire.NewConn(conn), workers: map[string]struct{}{},
		welcome: make(chan struct{}), lost: make(chan struct{}),
		answers: map[uint64]chan *wire.Frame{}, settled: map[uint64]chan *wire.Frame{},
		tails: map[uint64]*feed.Feed[contract.Event]{}, serves: map[uint64]*worker{},
	}
	b.work.Go(b.conn.Write) // both end when the connection is closed or lost
	b.work.Go(b.read)
	timer := time.NewTimer(dialTimeout)
	defer timer.Stop()
	select {
	case <-b.welcome:
		return b, nil
	case <-b.lost:
		err = b.cause
	case <-timer.C:
		err = errors.New("it does not answer")
	}
	_ = b.Close() // never fails
	return nil, fmt.Errorf("use the broker shared at %s: %w", path, err)
}

// Directory returns a copy of the shared broker's directory, which is kept up to
// date. It has no workers once the connection is lost.
func (b *Broker) Directory() *contract.Directory { return &b.directory }

// Ready returns the same as Health: Dial has waited until the Broker is ready.
func (b *Broker) Ready(context.Context) error { return b.Health() }

// Health returns nil, or an error with ErrUnavailable if the connection is lost or
// closed.
func (b *Broker) Health() error {
	select {
	case <-b.lost:
		return b.unavailable()
	default:
		return nil
	}
}

// Close closes the connection, and waits until the goroutines of the Broker have
// ended. It does not wait for Serve. It never fails.
func (b *Broker) Close() error {
	b.conn.Close()
	b.work.Wait()
	b.listeners.Stop()
	return nil
}

func (b *Broker) unavailable() *contract.Error {
	return &contract.Error{
		Code: contract.CodeUnavailable, Executed: contract.ExecutedNo, Cause: b.cause,
		Detail: fmt.Sprintf("the connection to the broker shared at %s is lost", b.path),
	}
}

// read handles what the broker sends until the connection is lost. Then it ends
// everything that waits for the broker.
func (b *Broker) read() {
	b.cause = b.conn.Read(b.handle)
	if errors.Is(b.cause, io.EOF) {
		b.cause = errors.New("the process that shared it has closed the connection")
	}
	close(b.lost)
	for w := range b.workers {
		b.directory.Update(contract.Announcement{Worker: w, Leaving: true}, time.Now())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, events := range b.tails {
		events.Stop()
	}
}

func (b *Broker) handle(f *wire.Frame) {
	switch f.Kind {
	case wire.Welcome:
		close(b.welcome)
		return
	case wire.Announced:
		b.updateDirectory(f.Announcement)
		return
	case wire.BroadcastMessage:
		b.listeners.Broadcast(f.Topic, f.Body)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch f.Kind {
	case wire.Answer:
		if ch := b.answers[f.ID]; ch != nil {
			ch <- f // it has a buffer of one
			delete(b.answers, f.ID)
		}
	case wire.Settled:
		if ch := b.settled[f.Run]; ch != nil {
			ch <- f // it has a buffer of one
			delete(b.settled, f.Run)
		}
	case wire.TailEvent:
		if events := b.tails[f.ID]; events != nil && f.Event != nil {
			events.Offer(*f.Event)
		}
	case wire.Deliver:
		if w := b.serves[f.ID]; w != nil && f.Event != nil {
			w.start(f)
		}
	case wire.CancelRun:
		if w := b.serves[f.ID]; w != nil && w.cancels[f.Run] != nil {
			w.cancels[f.Run]()
		}
	}
}

func (b *Broker) updateDirectory(a *contract.Announcement) {
	if a == nil {
		return
	}
	if a.Leaving {
		delete(b.workers, a.Worker)
	} else {
		b.workers[a.Worker] = struct{}{}
	}
	b.directory.Update(*a, time.Now())
}
