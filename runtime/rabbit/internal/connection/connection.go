// Package connection keeps a connection to RabbitMQ: it connects, reconnects with
// backoff, detects a silent peer, and reports whether the broker blocks
// publishers and what is wrong. It does not know what travels over it.
package connection

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"
)

const (
	heartbeat        = 5 * time.Second
	handshakeTimeout = 10 * time.Second
	silentHeartbeats = 3               // heartbeat intervals without a byte from the peer until the connection is closed
	settleTime       = 2 * time.Second // a user that runs this long has no problem
)

// Connection is an AMQP connection that reconnects for as long as it takes. It does
// not use the client's own recovery, after which an acknowledgement of an old
// delivery may settle a new one.
//
// A user of the connection is a function that runs on each transport; see Use.
type Connection struct {
	role              string
	namespace         string
	noDeclare         bool // the broker user may declare nothing
	Name              string
	source            func() ([]address, error) // returns where the broker is now, with credentials
	pace              Pace
	log               *zap.Logger
	users             sync.WaitGroup            // of its transports; each ends with its transport
	OnMissingExchange func(ctx context.Context) // called when an exchange of the namespace is missing

	mu            sync.Mutex
	transport     *Transport       // nil while there is none
	changed       chan struct{}    // closed when the state changes
	problem       error            // why there is no transport; nil with one
	problems      map[string]error // by user: why it does not work
	blocked       string           // the reason why the broker blocks publishers; "" when it does not
	unblock       chan struct{}    // closed when the broker stops blocking; nil when it does not block
	freed         time.Time        // when the broker last stopped blocking
	closeDeadline time.Time        // see CloseDeadline; zero before SetCloseDeadline
}

// Transport is one AMQP connection, until it is lost.
type Transport struct {
	AMQP   *amqp.Connection
	raw    *bufferedConn
	Closed chan struct{} // closed when the connection is

	unanswered atomic.Uint64 // 1 + raw.reads when the broker did not answer before the close deadline; 0: it did
}

var errNotYet = errors.New("not connected to RabbitMQ yet")

// New returns a Connection that connects while Run runs. role is part of its name
// in the broker and in the log.
func New(cfg Config, role string) *Connection {
	return &Connection{
		role: role, namespace: cfg.Namespace, noDeclare: cfg.NoDeclare, Name: cfg.Namespace + " " + role + " " + cfg.Process,
		source: cfg.addresses, pace: cfg.Pace, log: cfg.Log.With(zap.String("connection", role)),
		changed: make(chan struct{}), problems: map[string]error{},
		problem: errNotYet,
	}
}

// Open returns a connection that works, or why there is none within
// ReconnectPatience. The caller must call closeConnection.
func Open(ctx context.Context, cfg Config) (c *Connection, closeConnection func(), err error) {
	c = New(cfg, "topology")
	open, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { c.Run(open) })
	closeConnection = func() { cancel(); running.Wait() }
	ctx, stop := context.WithTimeout(ctx, ReconnectPatience)
	defer stop()
	if err := c.Ready(ctx); err != nil {
		closeConnection()
		return nil, nil, err
	}
	return c, closeConnection, nil
}

// Use calls fn with each transport, until ctx is done. fn's ctx ends when ctx or
// the transport does. If fn returns while its transport lives it is called again
// after a backoff, and its error is the problem of the user meanwhile.
func (c *Connection) Use(ctx context.Context, name string, fn func(ctx context.Context, conn *amqp.Connection) error) {
	pause := Backoff{Pace: c.pace}
	var last string
	for {
		t := c.Await(ctx)
		if t == nil {
			return
		}
		began := time.Now()
		err := c.UseOn(ctx, t, name, fn)
		if ctx.Err() != nil {
			return
		}
		if t.IsClosed() {
			last = ""
			continue
		}
		refusal, _ := errors.AsType[*amqp.Error](err)
		missing := refusal != nil && refusal.Code == amqp.NotFound
		if missing && c.noDeclare {
			err = fmt.Errorf("%w: this process declares nothing (RABBET_DECLARE=false), 'rabbet topology apply' does", err)
		}
		if err != nil {
			c.SetProblem(name, err)
			if err.Error() != last { // repeated errors are logged once
				last = err.Error()
				c.log.Warn("a user of the connection failed and is started again", zap.String("user", name), zap.Error(err))
			}
		}
		if missing && strings.Contains(refusal.Reason, "exchange '"+c.namespace+".") {
			c.OnMissingExchange(ctx)
		}
		if time.Since(began) > c.pace.Longest {
			pause.reset()
		}
		if !pause.Wait(ctx) {
			return
		}
	}
}

// UseOn runs fn until it returns. When ctx is done, it waits for fn until the close
// deadline: an fn that waits for an unresponsive broker ends with the transport.
func (c *Connection) UseOn(ctx context.Context, t *Transport, name string, fn func(context.Context, *amqp.Connection) error) error {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	c.mu.Lock()
	if c.transport == t {
		c.users.Go(func() { done <- fn(running, t.AMQP) })
	} else {
		done <- nil
	}
	c.mu.Unlock()
	settled := time.AfterFunc(settleTime, func() { c.SetProblem(name, nil) })
	defer settled.Stop()
	over := t.Closed
	for {
		select {
		case err := <-done:
			return err
		case <-over:
			over = nil
			cancel()
		case <-ctx.Done():
			timeout := time.NewTimer(time.Until(c.CloseDeadline()))
			defer timeout.Stop()
			select {
			case err := <-done:
				return err
			case <-timeout.C:
				t.unanswered.Store(1 + t.raw.reads.Load())
				return ctx.Err()
			}
		}
	}
}

// Run connects and reconnects until ctx is done; then it closes the connection.
// Several addresses are tried in turn, and all of them before the backoff grows.
func (c *Connection) Run(ctx context.Context) {
	defer c.users.Wait()
	pause := Backoff{Pace: c.pace}
	var last string
	for i := 0; ctx.Err() == nil; i++ {
		var connected time.Duration
		addresses, err := c.source()
		if err == nil {
			connected, err = c.connect(ctx, addresses[i%len(addresses)])
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			if last = ""; connected > c.pace.Longest {
				pause.reset()
			}
		default:
			c.down(err)
			if err.Error() != last { // repeated errors are logged once
				last = err.Error()
				c.log.Warn("cannot connect to the broker, trying again", zap.Error(err))
			}
			if len(addresses) > 0 && (i+1)%len(addresses) != 0 {
				continue
			}
		}
		if !pause.Wait(ctx) {
			return
		}
	}
}

// connect keeps a connection to a until it is lost, and returns for how long. An
// error says why there was none.
func (c *Connection) connect(ctx context.Context, a address) (time.Duration, error) {
	c.awaiting(a)
	t, err := c.dial(ctx, a)
	if err != nil {
		return 0, explainDial(a, err)
	}
	c.log.Info("connected to the broker", zap.Stringer("address", a), zap.Any("version", t.AMQP.Properties["version"]))
	began := time.Now()
	c.keep(ctx, a, t)
	return time.Since(began), nil
}

// keep serves t until it is lost or ctx is done.
func (c *Connection) keep(ctx context.Context, a address, t *Transport) {
	closed := t.AMQP.NotifyClose(make(chan *amqp.Error, 1))
	blocked := t.AMQP.NotifyBlocked(make(chan amqp.Blocking, 8))
	c.up(t)
	defer close(t.Closed)
	defer t.watch()()
	for {
		select {
		case <-ctx.Done():
			// The client's Close waits forever on a blocked connection; CloseDeadline
			// does not.
			_ = t.AMQP.CloseDeadline(c.CloseDeadline())
			c.down(errors.New("the connection to RabbitMQ is closed"))
			return
		case b, ok := <-blocked:
			if !ok {
				blocked = nil
				continue
			}
			c.SetBlocked(b)
		case reason := <-closed:
			var err error = amqp.ErrClosed
			if reason != nil {
				err = reason
			}
			c.down(explainLoss(a, err))
			c.log.Warn("lost the connection to the broker", zap.Stringer("address", a), zap.Error(err))
			return
		}
	}
}

// watch closes the connection when its peer is silent for too long, until stop is
// called. The client does the same, but only after it has read something since the
// handshake: it would never notice a peer that is lost before.
func (t *Transport) watch() (stop func()) {
	interval := t.AMQP.Config.Heartbeat
	if interval <= 0 {
		return func() {}
	}
	stopped := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		last, silent := t.raw.reads.Load(), 0
		for {
			select {
			case <-stopped:
				return
			case <-ticker.C:
			}
			if reads := t.raw.reads.Load(); reads != last {
				last, silent = reads, 0
			} else if silent++; silent >= silentHeartbeats {
				t.raw.giveUp()
			}
		}
	})
	return func() { close(stopped); watching.Wait() }
}

func (c *Connection) dial(ctx context.Context, a address) (*Transport, error) {
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(c.Name)
	properties["product"] = "rabbet"
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	var raw *bufferedConn
	stop := func() bool { return true }
	conn, err := amqp.DialConfig(a.url, amqp.Config{
		Heartbeat:  heartbeat,
		Properties: properties,
		Dial: func(network, addr string) (net.Conn, error) {
			var d net.Dialer
			netConn, err := d.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			raw = newBufferedConn(netConn)
			// A peer that accepts and sends nothing is given up when ctx ends.
			stop = context.AfterFunc(ctx, func() { _ = netConn.SetDeadline(time.Now()) })
			return raw, nil
		},
	})
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		if raw != nil {
			_ = raw.Close()
		}
		return nil, err
	}
	return &Transport{AMQP: conn, raw: raw, Closed: make(chan struct{})}, nil
}

// Await returns the transport, and waits for one; nil when ctx is done.
func (c *Connection) Await(ctx context.Context) *Transport {
	for {
		c.mu.Lock()
		t, changed := c.transport, c.changed
		c.mu.Unlock()
		if ctx.Err() != nil {
			return nil
		}
		if t != nil && !t.IsClosed() {
			return t
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// IsClosed reports whether the connection is lost.
func (t *Transport) IsClosed() bool {
	select {
	case <-t.Closed:
		return true
	default:
		return t.AMQP.IsClosed()
	}
}
