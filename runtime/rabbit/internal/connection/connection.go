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
	silentHeartbeats = 3               // without a byte from the peer: then it is given up
	settleTime       = 2 * time.Second // a user that runs this long is taken to be well
)

// Connection is one AMQP connection that heals itself: lost, it is made anew, for as
// long as it takes. It never uses the client's own recovery, which lets an
// acknowledgement from before it hit a message from after it.
type Connection struct {
	role              string
	namespace         string
	noDeclare         bool // nothing may be declared
	Name              string
	source            func() ([]address, error) // where the broker is now, and how it lets us in
	pace              Pace
	log               *zap.Logger
	users             sync.WaitGroup            // of its connections; they end with them
	OnMissingExchange func(ctx context.Context) // told that an exchange of the namespace is missing

	mu            sync.Mutex
	transport     *Transport       // nil while there is no connection
	changed       chan struct{}    // closed when live changes
	problem       error            // why there is no connection; nil with one
	problems      map[string]error // by user: why it cannot do its work
	blocked       string           // the broker's reason to take nothing; "" when it does
	unblock       chan struct{}    // closed when blocked ends; nil when it is not blocked
	freed         time.Time        // when it last ended
	closeDeadline time.Time        // see farewell; zero before the Broker is closed
}

// Transport is the life of one connection.
type Transport struct {
	AMQP   *amqp.Connection
	raw    *bufferedConn
	Closed chan struct{} // closed when the connection is

	unanswered atomic.Uint64 // 1 + raw.reads when the broker did not answer a farewell in time; 0: it did
}

var errNotYet = errors.New("not connected to RabbitMQ yet")

func New(cfg Config, role string) *Connection {
	return &Connection{
		role: role, namespace: cfg.Namespace, noDeclare: cfg.NoDeclare, Name: cfg.Namespace + " " + role + " " + cfg.Process,
		source: cfg.addresses, pace: cfg.Pace, log: cfg.Log.With(zap.String("link", role)),
		changed: make(chan struct{}), problems: map[string]error{},
		problem: errNotYet,
	}
}

// Open connects for a while.
func Open(ctx context.Context, cfg Config) (l *Connection, unplug func(), err error) {
	l = New(cfg, "topology")
	plugged, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { l.Run(plugged) })
	unplug = func() { cancel(); running.Wait() }
	ctx, stop := context.WithTimeout(ctx, ReconnectPatience)
	defer stop()
	if err := l.Ready(ctx); err != nil {
		unplug()
		return nil, nil, err
	}
	return l, unplug, nil
}

// Use calls fn with each connection that comes up, until ctx is done; then it
// returns. fn's ctx ends when ctx or the connection does. An fn that returns
// while its connection lives is called again after a pause.
func (l *Connection) Use(ctx context.Context, name string, fn func(ctx context.Context, conn *amqp.Connection) error) {
	pause := Backoff{Pace: l.pace}
	var last string
	for {
		s := l.Await(ctx)
		if s == nil {
			return
		}
		began := time.Now()
		err := l.UseOn(ctx, s, name, fn)
		if ctx.Err() != nil {
			return
		}
		if s.IsClosed() {
			last = ""
			continue
		}
		refusal, _ := errors.AsType[*amqp.Error](err)
		missing := refusal != nil && refusal.Code == amqp.NotFound
		if missing && l.noDeclare {
			err = fmt.Errorf("%w: this process declares nothing (RABBET_DECLARE=false), 'rabbet topology apply' does", err)
		}
		if err != nil {
			l.SetProblem(name, err)
			if err.Error() != last { // the same trouble over and over is one line
				last = err.Error()
				l.log.Warn("broker user stopped, it is started again", zap.String("user", name), zap.Error(err))
			}
		}
		if missing && strings.Contains(refusal.Reason, "exchange '"+l.namespace+".") {
			l.OnMissingExchange(ctx)
		}
		if time.Since(began) > l.pace.Longest {
			pause.reset()
		}
		if !pause.Wait(ctx) {
			return
		}
	}
}

// UseOn runs fn for as long as s lives. Once ctx is done it does not wait for
// ever for an fn that waits for a broker that is mute: that ends with s.
func (l *Connection) UseOn(ctx context.Context, s *Transport, name string, fn func(context.Context, *amqp.Connection) error) error {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	l.mu.Lock()
	if l.transport == s {
		l.users.Go(func() { done <- fn(running, s.AMQP) })
	} else {
		done <- nil
	}
	l.mu.Unlock()
	well := time.AfterFunc(settleTime, func() { l.SetProblem(name, nil) })
	defer well.Stop()
	over := s.Closed
	for {
		select {
		case err := <-done:
			return err
		case <-over:
			over = nil
			cancel()
		case <-ctx.Done():
			patience := time.NewTimer(time.Until(l.CloseDeadline()))
			defer patience.Stop()
			select {
			case err := <-done:
				return err
			case <-patience.C:
				s.unanswered.Store(1 + s.raw.reads.Load())
				return ctx.Err()
			}
		}
	}
}

// Run connects, and connects again, until ctx is done; then it closes the
// connection. Several addresses are tried in turn, and all of them before the
// pause grows.
func (l *Connection) Run(ctx context.Context) {
	defer l.users.Wait()
	pause := Backoff{Pace: l.pace}
	var last string
	for i := 0; ctx.Err() == nil; i++ {
		var connected time.Duration
		addresses, err := l.source()
		if err == nil {
			connected, err = l.connect(ctx, addresses[i%len(addresses)])
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			if last = ""; connected > l.pace.Longest {
				pause.reset()
			}
		default:
			l.down(err)
			if err.Error() != last { // the same trouble over and over is one line
				last = err.Error()
				l.log.Warn("no connection to the broker, trying on", zap.Error(err))
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

// connect holds a connection to a until it is lost, and says for how long. An
// error says why there was none.
func (l *Connection) connect(ctx context.Context, a address) (time.Duration, error) {
	l.awaiting(a)
	s, err := l.dial(ctx, a)
	if err != nil {
		return 0, explainDial(a, err)
	}
	l.log.Info("connected to the broker", zap.Stringer("address", a), zap.Any("version", s.AMQP.Properties["version"]))
	began := time.Now()
	l.keep(ctx, a, s)
	return time.Since(began), nil
}

// keep holds s until it is lost or ctx is done.
func (l *Connection) keep(ctx context.Context, a address, s *Transport) {
	closed := s.AMQP.NotifyClose(make(chan *amqp.Error, 1))
	blocked := s.AMQP.NotifyBlocked(make(chan amqp.Blocking, 8))
	l.up(s)
	defer close(s.Closed)
	defer s.watch()()
	for {
		select {
		case <-ctx.Done():
			// Close waits for ever on a blocked connection; CloseDeadline does not.
			_ = s.AMQP.CloseDeadline(l.CloseDeadline())
			l.down(errors.New("the connection to RabbitMQ is closed"))
			return
		case b, ok := <-blocked:
			if !ok {
				blocked = nil
				continue
			}
			l.SetBlocked(b)
		case reason := <-closed:
			var err error = amqp.ErrClosed
			if reason != nil {
				err = reason
			}
			l.down(explainLoss(a, err))
			l.log.Warn("lost the connection to the broker", zap.Stringer("address", a), zap.Error(err))
			return
		}
	}
}

// watch ends the connection when its peer is silent for too long, until stop
// is called. The client does the same, but only after it has read something
// since the handshake: a peer that is gone before would never be missed.
func (s *Transport) watch() (stop func()) {
	interval := s.AMQP.Config.Heartbeat
	if interval <= 0 {
		return func() {}
	}
	stopped := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		last, silent := s.raw.reads.Load(), 0
		for {
			select {
			case <-stopped:
				return
			case <-ticker.C:
			}
			if reads := s.raw.reads.Load(); reads != last {
				last, silent = reads, 0
			} else if silent++; silent >= silentHeartbeats {
				s.raw.giveUp()
			}
		}
	})
	return func() { close(stopped); watching.Wait() }
}

func (l *Connection) dial(ctx context.Context, a address) (*Transport, error) {
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(l.Name)
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
			c, err := d.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			raw = newBufferedConn(c)
			// A broker that accepts and keeps mute ends with ctx.
			stop = context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })
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

// Await returns the living session, and waits for one; nil when ctx is done.
func (l *Connection) Await(ctx context.Context) *Transport {
	for {
		l.mu.Lock()
		s, changed := l.transport, l.changed
		l.mu.Unlock()
		if ctx.Err() != nil {
			return nil
		}
		if s != nil && !s.IsClosed() {
			return s
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (s *Transport) IsClosed() bool {
	select {
	case <-s.Closed:
		return true
	default:
		return s.AMQP.IsClosed()
	}
}
