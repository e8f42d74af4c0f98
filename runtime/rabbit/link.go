package rabbit

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
	closeTimeout     = 2 * time.Second // for the broker's answer to what is closed
	settleTime       = 2 * time.Second // a user that runs this long is taken to be well
)

// link is one AMQP connection that heals itself: lost, it is made anew, for as
// long as it takes. It never uses the client's own recovery, which lets an
// acknowledgement from before it hit a message from after it.
type link struct {
	role      string
	namespace string
	fixed     bool // nothing may be declared
	name      string
	source    func() ([]address, error) // where the broker is now, and how it lets us in
	pace      pace
	log       *zap.Logger
	users     sync.WaitGroup            // of its connections; they end with them
	missed    func(ctx context.Context) // told that an exchange of the namespace is missing

	mu       sync.Mutex
	live     *session         // nil while there is no connection
	changed  chan struct{}    // closed when live changes
	problem  error            // why there is no connection; nil with one
	problems map[string]error // by user: why it cannot do its work
	blocked  string           // the broker's reason to take nothing; "" when it does
	unblock  chan struct{}    // closed when blocked ends; nil when it is not blocked
	freed    time.Time        // when it last ended
	closeBy  time.Time        // see farewell; zero before the Broker is closed
}

// session is the life of one connection.
type session struct {
	conn *amqp.Connection
	raw  *bufferedConn
	over chan struct{} // closed when conn is

	unanswered atomic.Uint64 // 1 + raw.reads when the broker did not answer a farewell in time; 0: it did
}

var errNotYet = errors.New("not connected to RabbitMQ yet")

func newLink(cfg Config, role string) *link {
	return &link{
		role: role, namespace: cfg.Namespace, fixed: cfg.NoDeclare, name: cfg.Namespace + " " + role + " " + cfg.Process,
		source: cfg.addresses, pace: cfg.pace, log: cfg.Log.With(zap.String("link", role)),
		changed: make(chan struct{}), problems: map[string]error{},
		problem: errNotYet,
	}
}

// use calls fn with each connection that comes up, until ctx is done; then it
// returns. fn's ctx ends when ctx or the connection does. An fn that returns
// while its connection lives is called again after a pause.
func (l *link) use(ctx context.Context, name string, fn func(ctx context.Context, conn *amqp.Connection) error) {
	pause := backoff{pace: l.pace}
	var last string
	for {
		s := l.next(ctx)
		if s == nil {
			return
		}
		began := time.Now()
		err := l.lend(ctx, s, name, fn)
		if ctx.Err() != nil {
			return
		}
		if s.isOver() {
			last = ""
			continue
		}
		refusal, _ := errors.AsType[*amqp.Error](err)
		missing := refusal != nil && refusal.Code == amqp.NotFound
		if missing && l.fixed {
			err = fmt.Errorf("%w: this process declares nothing (RABBET_DECLARE=false), 'rabbet topology apply' does", err)
		}
		if err != nil {
			l.setProblem(name, err)
			if err.Error() != last { // the same trouble over and over is one line
				last = err.Error()
				l.log.Warn("broker user stopped, it is started again", zap.String("user", name), zap.Error(err))
			}
		}
		if missing && strings.Contains(refusal.Reason, "exchange '"+l.namespace+".") {
			l.missed(ctx)
		}
		if time.Since(began) > l.pace.longest {
			pause.reset()
		}
		if !pause.wait(ctx) {
			return
		}
	}
}

// lend runs fn for as long as s lives. Once ctx is done it does not wait for
// ever for an fn that waits for a broker that is mute: that ends with s.
func (l *link) lend(ctx context.Context, s *session, name string, fn func(context.Context, *amqp.Connection) error) error {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	l.mu.Lock()
	if l.live == s {
		l.users.Go(func() { done <- fn(running, s.conn) })
	} else {
		done <- nil
	}
	l.mu.Unlock()
	well := time.AfterFunc(settleTime, func() { l.setProblem(name, nil) })
	defer well.Stop()
	over := s.over
	for {
		select {
		case err := <-done:
			return err
		case <-over:
			over = nil
			cancel()
		case <-ctx.Done():
			patience := time.NewTimer(time.Until(l.farewell()))
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

// run connects, and connects again, until ctx is done; then it closes the
// connection. Several addresses are tried in turn, and all of them before the
// pause grows.
func (l *link) run(ctx context.Context) {
	defer l.users.Wait()
	pause := backoff{pace: l.pace}
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
			if last = ""; connected > l.pace.longest {
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
		if !pause.wait(ctx) {
			return
		}
	}
}

// connect holds a connection to a until it is lost, and says for how long. An
// error says why there was none.
func (l *link) connect(ctx context.Context, a address) (time.Duration, error) {
	l.awaiting(a)
	s, err := l.dial(ctx, a)
	if err != nil {
		return 0, explainDial(a, err)
	}
	l.log.Info("connected to the broker", zap.Stringer("address", a), zap.Any("version", s.conn.Properties["version"]))
	began := time.Now()
	l.keep(ctx, a, s)
	return time.Since(began), nil
}

// keep holds s until it is lost or ctx is done.
func (l *link) keep(ctx context.Context, a address, s *session) {
	closed := s.conn.NotifyClose(make(chan *amqp.Error, 1))
	blocked := s.conn.NotifyBlocked(make(chan amqp.Blocking, 8))
	l.up(s)
	defer close(s.over)
	defer s.watch()()
	for {
		select {
		case <-ctx.Done():
			// Close waits for ever on a blocked connection; CloseDeadline does not.
			_ = s.conn.CloseDeadline(l.farewell())
			l.down(errors.New("the connection to RabbitMQ is closed"))
			return
		case b, ok := <-blocked:
			if !ok {
				blocked = nil
				continue
			}
			l.setBlocked(b)
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
func (s *session) watch() (stop func()) {
	interval := s.conn.Config.Heartbeat
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

func (l *link) dial(ctx context.Context, a address) (*session, error) {
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(l.name)
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
	return &session{conn: conn, raw: raw, over: make(chan struct{})}, nil
}

// next returns the living session, and waits for one; nil when ctx is done.
func (l *link) next(ctx context.Context) *session {
	for {
		l.mu.Lock()
		s, changed := l.live, l.changed
		l.mu.Unlock()
		if ctx.Err() != nil {
			return nil
		}
		if s != nil && !s.isOver() {
			return s
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (s *session) isOver() bool {
	select {
	case <-s.over:
		return true
	default:
		return s.conn.IsClosed()
	}
}

// closeChannel closes ch, but does not wait for ever for a broker that reads
// nothing: then the channel ends with its connection.
func closeChannel(ch *amqp.Channel) {
	ending(func() { _ = ch.Close() })
}

// ending waits for fn, which ends with a connection, for closeTimeout.
func ending(fn func()) {
	done := make(chan struct{})
	go func() { // ends with the connection at the latest
		defer close(done)
		fn()
	}()
	t := time.NewTimer(closeTimeout)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}
