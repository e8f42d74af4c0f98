package ingress

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// readTimeout limits the time for a request to arrive, including its body.
	readTimeout = 40 * time.Second
	// writeTimeout limits the time from a request's arrival to the end of its
	// response. Calls that may take longer and live tails extend it.
	writeTimeout = 90 * time.Second
	// acceptPeriod is how long Shutdown still accepts connections after it has
	// told the kernel to refuse new ones: several round trips, so that clients
	// which are connecting at that moment are served.
	acceptPeriod = 300 * time.Millisecond
)

// Server is an http.Server for a public port that loses no request when it
// stops. NewServer makes one. Only Serve starts it: the other methods of
// http.Server that do so would bypass Shutdown.
type Server struct {
	http.Server

	// Patience is how long Shutdown waits for clients to close connections on which
	// no request comes, before it closes them. A request that arrives at that very
	// moment is lost. That cannot happen to a client whose own limit for idle
	// connections is shorter. Zero: they are closed at once, as are those that are
	// not TCP.
	Patience time.Duration

	mu        sync.Mutex
	stopping  bool
	listeners []net.Listener
	serving   sync.WaitGroup // calls of Serve

	connections connections
}

// NewServer returns a server for h with the limits that a public port needs: 10 s
// and 32 KiB for a request's header fields (431 above), 40 s for all of it
// (408), 120 s between requests. Its error log goes to log at level debug,
// because its errors are about clients. The handler limits the size of bodies.
func NewServer(h http.Handler, log *zap.Logger) *Server {
	if log == nil {
		log = zap.NewNop()
	}
	errorLog, err := zap.NewStdLogAt(log.Named("http"), zap.DebugLevel)
	if err != nil { // cannot happen: the level exists
		panic(err)
	}
	s := &Server{Server: http.Server{
		Handler:           h,
		ReadTimeout:       readTimeout,
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          errorLog,
	}}
	s.ConnState = s.connections.track
	return s
}

// Serve serves the connections that l accepts, as http.Server.Serve does. After
// Shutdown it returns http.ErrServerClosed.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		_ = l.Close()
		return http.ErrServerClosed
	}
	s.listeners = append(s.listeners, l)
	s.serving.Add(1)
	s.mu.Unlock()
	defer s.serving.Done()

	err := s.Server.Serve(listener{l})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping && errors.Is(err, net.ErrClosed) {
		err = http.ErrServerClosed
	}
	return err
}

// Shutdown stops the server without losing a request, and returns when all
// connections are closed or ctx is done.
//
// http.Server.Shutdown alone would lose two kinds of requests: those on
// connections that the kernel has established and the server has not accepted,
// and those that arrive on an idle connection while it is being closed.
// Therefore:
//
//  1. The kernel refuses new connections. Those that it has established are
//     still accepted for a short period; then the listeners are closed.
//  2. Connections on which no request comes stay open for at most Patience. The
//     handler must answer with Connection: close by now, see Ingress.Draining, so
//     that each client learns with its next response that the connection ends.
//  3. The requests that are being received or served are finished.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopping = true
	listeners := s.listeners
	s.mu.Unlock()

	for _, l := range listeners {
		refuseConnections(l)
	}
	wait(ctx, acceptPeriod, nil)
	for _, l := range listeners {
		_ = l.Close() // fails if Serve has closed it already
	}
	s.serving.Wait() // no connection is added after this

	closed := s.connections.closed()
	wait(ctx, s.Patience, closed)
	s.connections.closeIdle()
	wait(ctx, s.ReadHeaderTimeout, closed) // http.Server.Shutdown would close connections that receive header fields
	return s.Server.Shutdown(ctx)
}

// wait returns after d, or earlier when done is closed or ctx is done.
func wait(ctx context.Context, d time.Duration, done <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	case <-ctx.Done():
	}
}
