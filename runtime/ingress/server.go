package ingress

import (
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/solo"
)

// writeTimeout is how long a response may take from the request's arrival on;
// calls that may last longer and live tails put it off.
const writeTimeout = 90 * time.Second

// readTimeout is how long a client may take to send a request, its body
// included. It does not count while a handler works.
const readTimeout = 40 * time.Second

// Server is an http.Server for a public port, which loses no request when it
// stops. NewServer makes one.
type Server struct {
	http.Server

	// Patience is how long Shutdown leaves a connection open on which no request
	// comes. A client that gives up its idle connections sooner than that never
	// loses a request to one that is closed here at the same moment.
	Patience time.Duration

	// Solo is told whether all requests come over one connection. Nil: nobody is.
	Solo *solo.Switch

	mu        sync.Mutex
	stopping  bool
	listeners []net.Listener
	open      map[*clientConn]struct{}
	accepting sync.WaitGroup // calls of Serve
	serving   sync.WaitGroup // those that are open
}

// NewServer returns a server for h with limits that a public port needs: 10 s
// and 32 KiB for a request's header fields (431 above), 40 s for all of it
// (408), 120 s between requests. Its own complaints go to log at debug: they
// are about clients. The handler limits the size of bodies.
func NewServer(h http.Handler, log *zap.Logger) *Server {
	if log == nil {
		log = zap.NewNop()
	}
	complaints, err := zap.NewStdLogAt(log.Named("http"), zap.DebugLevel)
	if err != nil { // never: the level exists
		panic(err)
	}
	s := &Server{
		Server: http.Server{
			Handler:           h,
			ReadTimeout:       readTimeout,
			ReadHeaderTimeout: 10 * time.Second,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       120 * time.Second,
			MaxHeaderBytes:    32 << 10,
			ErrorLog:          complaints,
		},
		open: map[*clientConn]struct{}{},
	}
	s.ConnState = s.follow
	if _, alone := h.(*Ingress); alone { // else others may serve the connection, or the same request
		s.ConnContext = withClientConn
	}
	return s
}
