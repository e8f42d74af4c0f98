//go:build unix && !aix

package ingress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/solo"
)

// startQuick serves h as a process does, over connections whose last answer was quick.
func startQuick(t *testing.T, h http.Handler) *httptest.Server {
	return startWith(t, h, func(ctx context.Context, c net.Conn) context.Context {
		c.(*clientConn).answered(0)
		return withClientConn(ctx, c)
	})
}

// A client that leaves ends its call, whether net/http watches or the call looks itself.
func TestClientThatLeavesEndsItsCall(t *testing.T) {
	for name, serve := range map[string]func(*testing.T, http.Handler) *httptest.Server{"watched": start, "after a quick answer": startQuick} {
		for what, wait := range map[string]func(context.Context){
			"listens": func(ctx context.Context) { <-ctx.Done() },
			"derives": func(ctx context.Context) {
				derived, cancel := context.WithTimeout(ctx, time.Minute)
				defer cancel()
				<-derived.Done()
			},
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				t.Parallel()
				b := newBroker()
				under, ended := make(chan bool, 1), make(chan error, 1)
				b.call = func(ctx context.Context, _ contract.Call) (contract.Reply, error) {
					under <- true
					wait(ctx)
					ended <- ctx.Err()
					return contract.Reply{}, &contract.Error{Code: contract.CodeCanceled, Executed: contract.ExecutedUnknown}
				}
				core, lines := observer.New(zap.InfoLevel)
				server := serve(t, New(Config{Broker: b, Log: zap.New(core)}))
				c, err := net.Dial("tcp", server.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprint(c, "GET /profiles/1 HTTP/1.1\r\nHost: x\r\n\r\n")
				<-under
				select {
				case <-ended:
					t.Fatal("the call ended while its client was there")
				case <-time.After(2 * watchInterval):
				}
				c.Close()
				if err := <-ended; !errors.Is(err, context.Canceled) {
					t.Errorf("the call ended with %v", err)
				}
				server.Close()
				if all := lines.All(); len(all) != 1 || all[0].ContextMap()["status"] != int64(statusClientGone) {
					t.Errorf("logged: %v; want one line with 499", all)
				}
			})
		}
	}
}

// What waits does not disturb the connection: the same one serves the next
// requests, one that was sent ahead as well.
func TestConnectionsOutliveWhatWaits(t *testing.T) {
	b := newBroker()
	conns := make(chan *clientConn, 1)
	b.call = func(ctx context.Context, r contract.Call) (contract.Reply, error) {
		select {
		case conns <- ctx.Value(clientConnKey{}).(*clientConn):
		default:
		}
		if strings.Contains(string(r.Body), "slow") {
			select {
			case <-ctx.Done():
				return contract.Reply{}, ctx.Err()
			case <-time.After(3 * watchInterval):
			}
		}
		return contract.Reply{Body: r.Body}, nil
	}
	server := startQuick(t, New(Config{Broker: b}))
	c, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for _, sent := range [][]string{{"1"}, {"slow-1"}, {"2"}, {"3", "slow-2", "4"}, {"slow-3"}} {
		var ahead strings.Builder
		for _, id := range sent {
			fmt.Fprintf(&ahead, "GET /profiles/%s HTTP/1.1\r\nHost: x\r\nX-Request-Id: id-%s\r\n\r\n", id, id)
		}
		if _, err := io.WriteString(c, ahead.String()); err != nil {
			t.Fatal(err)
		}
		for _, id := range sent {
			r, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(r.Body)
			if err != nil || r.StatusCode != 200 || string(body) != `{"id":"`+id+`"}` || r.Header.Get("X-Request-Id") != "id-"+id {
				t.Errorf("%s: %d %s %v, for %s", id, r.StatusCode, body, err, r.Header.Get("X-Request-Id"))
			}
		}
	}
	if (<-conns).quick.Load() {
		t.Error("an answer that took its time counts as a quick one")
	}
	fmt.Fprint(c, "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p := readProblem(t, r); p.Function != "" || p.Attempt != 0 || r.Header.Get("Server-Timing") != "" {
		t.Errorf("%+v, %v: it has something of the requests before", p, r.Header)
	}
}

// Only the read that net/http watches with may end without a byte.
func TestReadsOfOneByte(t *testing.T) {
	conn, other := pair(t)
	conn.(*clientConn).answered(0)
	if _, err := other.Write([]byte("ab")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if n, err := conn.Read(b); n != 0 || err != nil {
		t.Errorf("without a deadline: %d, %v", n, err)
	}
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := conn.Read(b); n != 1 || err != nil || b[0] != 'a' {
		t.Errorf("with a deadline: %d, %v, %q", n, err, b)
	}
}

// After a quick answer net/http does not read while the handler works, and
// after one that took its time it does again.
func TestNetHTTPWatchesWhereItIsWorthIt(t *testing.T) {
	reads := func(c *clientConn) int {
		c.read.mu.Lock()
		defer c.read.mu.Unlock()
		return c.read.busy
	}
	settles := func(c *clientConn, want int) bool {
		for range 1000 {
			runtime.Gosched()
			if reads(c) == want {
				return true
			}
			time.Sleep(time.Millisecond)
		}
		return false
	}
	server := startQuick(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		c := clientConnOf(r)
		if r.URL.Path == "/quick" {
			time.Sleep(5 * time.Millisecond)
			if n := reads(c); n != 0 {
				t.Errorf("%d reads are under way after a quick answer", n)
			}
			c.answered(time.Millisecond)
		} else if !settles(c, 1) {
			t.Error("nobody watches after an answer that took its time")
		}
	}))
	for _, path := range []string{"/quick", "/then"} {
		r, err := server.Client().Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
	}
}

// While requests come one by one net/http watches none, however long they take.
func TestNetHTTPWatchesNoLoneRequest(t *testing.T) {
	conn, _ := pair(t)
	c := conn.(*clientConn)
	c.listener.solo = switchedOn(t)
	for _, alone := range []bool{true, false} {
		if c.answered(time.Second); c.quick.Load() != alone {
			t.Errorf("alone %v: the next request is left unwatched: %v", alone, c.quick.Load())
		}
		c.listener.solo.Crowded()
	}
}

// switchedOn returns a switch that is on until t is over, unless t ends that.
func switchedOn(t *testing.T) *solo.Switch {
	told := make(chan bool, 3)
	s := solo.NewSwitch(func(on bool) { told <- on })
	t.Cleanup(s.Crowded)
	for !s.On() {
		s.Alone()
	}
	<-told
	return s
}

// Requests that share a connection at the same time share nothing else.
func TestOneConnectionForManyAtOnce(t *testing.T) {
	h := New(Config{Broker: newBroker()})
	server := NewServer(h, nil)
	server.Protocols = new(http.Protocols)
	server.Protocols.SetUnencryptedHTTP2(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l) // ends with Close
	defer server.Close()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	defer client.CloseIdleConnections()

	var g sync.WaitGroup
	for i := range 200 {
		g.Go(func() {
			r, err := client.Get(fmt.Sprintf("http://%s/profiles/%d", l.Addr(), i))
			if err != nil {
				t.Error(err)
				return
			}
			if body := text(t, r); r.ProtoMajor != 2 || body != fmt.Sprintf(`{"id":"%d"}`, i) {
				t.Errorf("%d: HTTP/%d %s", i, r.ProtoMajor, body)
			}
		})
	}
	g.Wait()
}

// A context that nobody listens to starts nothing, and one whose handler has
// returned looks no more.
func TestContextThatNobodyListensTo(t *testing.T) {
	conn, _ := pair(t)
	parent, cancel := context.WithCancel(context.WithValue(context.Background(), clientConnKey{}, "value"))
	defer cancel()
	quiet := &clientContext{Context: parent, conn: conn.(*clientConn)}
	if quiet.Err() != nil || quiet.Value(clientConnKey{}) != "value" || quiet.timer != nil {
		t.Errorf("%v, %v, %v", quiet.Err(), quiet.Value(clientConnKey{}), quiet.timer)
	}
	quiet.end()
	late := quiet.Done() // by somebody who outlives the handler
	cancel()             // as net/http does then
	<-late
	quiet.timer.Stop()
	quiet.look() // one that had begun already
	if quiet.timer.Stop() {
		t.Error("it goes on looking for a client whose handler has returned")
	}
}

// A failure right after the client has left is told from one that it has seen.
func TestFailureAfterTheClientHasLeft(t *testing.T) {
	b := newBroker()
	under, left := make(chan bool), make(chan bool)
	b.call = func(context.Context, contract.Call) (contract.Reply, error) {
		under <- true
		<-left
		return contract.Reply{}, &contract.Error{Code: contract.CodeInternal}
	}
	core, lines := observer.New(zap.InfoLevel)
	server := startQuick(t, New(Config{Broker: b, Log: zap.New(core)}))
	c, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "GET /profiles/1 HTTP/1.1\r\nHost: x\r\n\r\n")
	<-under
	c.Close()
	time.Sleep(watchInterval / 5) // the other end hears of it
	close(left)
	server.Close()
	if all := lines.All(); len(all) != 1 || all[0].ContextMap()["status"] != int64(statusClientGone) {
		t.Errorf("logged: %v; want one line with 499", all)
	}
}

// An idle connection keeps nothing of its last request.
func TestIdleConnectionsKeepNothing(t *testing.T) {
	conns := make(chan *clientConn, 1)
	server := startWith(t, New(Config{Broker: newBroker()}), func(ctx context.Context, c net.Conn) context.Context {
		conns <- c.(*clientConn)
		return withClientConn(ctx, c)
	})
	r, err := server.Client().Get(server.URL + "/profiles/42")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	server.Close() // the handler has returned
	if x := &(<-conns).exchange; x.request != nil || x.ResponseWriter != nil || x.function != nil || x.status != 200 {
		t.Errorf("it keeps %+v", x)
	}
}

// What is in front of the ingress may call it for one request as often as it
// likes, and go on without it.
func TestIngressBehindAHandler(t *testing.T) {
	ingress := New(Config{Broker: newBroker()})
	server := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var g sync.WaitGroup
		answers := make([]*httptest.ResponseRecorder, 20)
		for n := range answers {
			g.Go(func() {
				answers[n] = httptest.NewRecorder()
				part := r.Clone(r.Context())
				part.URL.Path = fmt.Sprintf("/profiles/%d", n)
				ingress.ServeHTTP(answers[n], part)
			})
		}
		g.Wait()
		for n, answer := range answers {
			if want := fmt.Sprintf(`{"id":"%d"}`, n); answer.Body.String() != want {
				t.Errorf("%s, want %s", answer.Body, want)
			}
		}
	}))
	r, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
}

// A connection on which nobody waits any longer for a request still takes the
// one that has come.
func TestDismissedConnectionTakesWhatHasCome(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	other := dial(t, l.Addr().String())
	accepted, err := (&clientListener{Listener: l}).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	c := accepted.(*clientConn)
	c.waits.Store(true)
	other.send("GET")
	for !c.pending() {
		runtime.Gosched()
	}
	c.dismiss()
	b := make([]byte, 10)
	if n, err := c.Read(b); err != nil || string(b[:n]) != "GET" {
		t.Errorf("got %q, %v; want what was sent", b[:n], err)
	}
	c.waits.Store(true)
	if n, err := c.Read(b); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %q, %v when nothing has come; want the end", b[:n], err)
	}
}

// What a glance finds out of a connection is not lost.
func TestConnectionIsResetAtAGlance(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	other := dial(t, l.Addr().String())
	clients := &clientListener{Listener: l, solo: switchedOn(t)}
	accepted, err := clients.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	c := accepted.(*clientConn)
	clients.latest.Store(c)
	c.waits.Store(true)
	if err := other.conn.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	_ = other.conn.Close()
	if _, err := c.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want that it was reset", err)
	}
}
