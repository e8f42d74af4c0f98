package ingress

import (
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// writeTimeout is how long a response may take from the request's arrival on;
// calls that may last longer and live tails put it off.
const writeTimeout = 90 * time.Second

// readTimeout is how long a client may take to send a request, its body
// included. It does not count while a handler works.
const readTimeout = 40 * time.Second

// Server is an http.Server for a public port. NewServer makes one.
type Server struct{ http.Server }

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
	s := &Server{http.Server{
		Handler:           h,
		ReadTimeout:       readTimeout,
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          complaints,
	}}
	if _, alone := h.(*Ingress); alone { // else others may serve the connection, or the same request
		s.ConnContext = withClientConn
	}
	return s
}

// Serve serves connections that l accepts, as http.Server does.
func (s *Server) Serve(l net.Listener) error { return s.Server.Serve(clientListener{l}) }
