package ingress

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// arrival is how long a client may take to connect that has begun to: some
// round trips.
const arrival = 300 * time.Millisecond

// Serve serves connections that l accepts, as http.Server does.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		_ = l.Close()
		return http.ErrServerClosed
	}
	s.listeners = append(s.listeners, l)
	s.accepting.Add(1)
	s.mu.Unlock()
	defer s.accepting.Done()
	err := s.Server.Serve(&clientListener{Listener: l, solo: s.Solo})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping && errors.Is(err, net.ErrClosed) {
		err = http.ErrServerClosed
	}
	return err
}

// Shutdown stops the server as http.Server's does, once all clients have left
// or ctx is done. That one would lose requests: those of connections that the
// kernel has and the server has not accepted yet, and those that come over a
// connection just as it is closed because it looks idle. So the handler should
// say Connection: close by now (see Ingress.Draining), and
//
//   - new connections are refused, while those that the kernel has made, or is
//     about to make, are still accepted: see turnAway;
//   - a connection on which no request comes is closed after Patience, and no
//     sooner: most clients give it up by themselves, or are told to with the
//     answer to their next request.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopping = true
	listeners := s.listeners
	s.mu.Unlock()
	for _, l := range listeners {
		turnAway(l)
	}
	arrived, cancel := context.WithTimeout(ctx, arrival)
	defer cancel()
	<-arrived.Done()
	for _, l := range listeners {
		_ = l.Close() // of one that Serve has closed already
	}
	s.accepting.Wait()
	dismissal := time.AfterFunc(s.Patience, s.dismiss)
	defer dismissal.Stop()
	left := make(chan struct{})
	go func() { // ends with the last connection
		s.serving.Wait()
		close(left)
	}()
	select {
	case <-left:
	case <-ctx.Done():
	}
	return s.Server.Shutdown(ctx)
}

// dismiss ends all connections on which no request comes.
func (s *Server) dismiss() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		c.dismiss()
	}
}

// follow is a server's ConnState.
func (s *Server) follow(conn net.Conn, state http.ConnState) {
	c, ok := conn.(*clientConn)
	if !ok {
		return
	}
	switch state {
	case http.StateNew:
		s.serving.Add(1)
		s.mu.Lock()
		s.open[c] = struct{}{}
		s.mu.Unlock()
	case http.StateClosed, http.StateHijacked:
		s.mu.Lock()
		delete(s.open, c)
		s.mu.Unlock()
		s.serving.Done()
		return
	}
	c.waits.Store(state != http.StateActive)
}
