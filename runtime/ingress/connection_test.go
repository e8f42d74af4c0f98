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
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/access"
)

// pause is long enough to see that nothing happens.
const pause = 100 * time.Millisecond

// A client that leaves ends its call.
func TestClientThatLeavesEndsItsCall(t *testing.T) {
	for name, wait := range map[string]func(context.Context){
		"listens": func(ctx context.Context) { <-ctx.Done() },
		"derives": func(ctx context.Context) {
			derived, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			<-derived.Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
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
			server := start(t, New(Config{Broker: b, Log: zap.New(core)}))
			c := dial(t, server.Listener.Addr().String())
			c.send("GET /profiles/1 HTTP/1.1\r\nHost: x\r\n\r\n")
			<-under
			select {
			case <-ended:
				t.Fatal("the call ended while its client was there")
			case <-time.After(pause):
			}
			c.conn.Close()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("the call ended with %v", err)
			}
			server.Close()
			if all := lines.All(); len(all) != 1 || all[0].ContextMap()["status"] != int64(access.StatusClientGone) {
				t.Errorf("logged: %v; want one line with 499", all)
			}
		})
	}
}

// A call that waits does not disturb its connection: the same one serves the next
// requests, also if they were sent ahead.
func TestConnectionsOutliveCallsThatWait(t *testing.T) {
	b := newBroker()
	b.call = func(ctx context.Context, r contract.Call) (contract.Reply, error) {
		if strings.Contains(string(r.Body), "slow") {
			select {
			case <-ctx.Done():
				return contract.Reply{}, ctx.Err()
			case <-time.After(pause):
			}
		}
		return contract.Reply{Body: r.Body}, nil
	}
	server := start(t, New(Config{Broker: b}))
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
	fmt.Fprint(c, "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p := readProblem(t, r); p.Function != "" || p.Attempt != 0 || r.Header.Get("Server-Timing") != "" {
		t.Errorf("%+v, %v: it has something of the requests before", p, r.Header)
	}
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

// A failure is not logged as one if the client has left before.
func TestFailureAfterTheClientHasLeft(t *testing.T) {
	b := newBroker()
	under := make(chan bool)
	b.call = func(ctx context.Context, _ contract.Call) (contract.Reply, error) {
		under <- true
		<-ctx.Done()
		return contract.Reply{}, &contract.Error{Code: contract.CodeInternal}
	}
	core, lines := observer.New(zap.InfoLevel)
	server := start(t, New(Config{Broker: b, Log: zap.New(core)}))
	c := dial(t, server.Listener.Addr().String())
	c.send("GET /profiles/1 HTTP/1.1\r\nHost: x\r\n\r\n")
	<-under
	c.conn.Close()
	server.Close()
	if all := lines.All(); len(all) != 1 || all[0].ContextMap()["status"] != int64(access.StatusClientGone) {
		t.Errorf("logged: %v; want one line with 499", all)
	}
}

// A handler in front of the ingress may call it several times for one request, at
// the same time.
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
