package brokertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// echo returns a request function that answers with the id that it received, and
// with by.
func echo(by string) contract.Function {
	return onAsk("echo", func(_ context.Context, in ask) (answer, error) { return answer{in.ID, by}, nil })
}

// errorOf makes a call that must fail, and returns its error.
func (s *system) errorOf(ctx context.Context, b Broker, r contract.Call) *contract.Error {
	s.Helper()
	reply, err := b.Call(ctx, r)
	e, ok := errors.AsType[*contract.Error](err)
	if !ok {
		s.Fatalf("got %s and %#v, want an *contract.Error", reply.Body, err)
	}
	return e
}

// wantError checks the code of e, and that its Executed is one of those.
func (s *system) wantError(e *contract.Error, code contract.Code, executed ...contract.Executed) {
	s.Helper()
	if e.Code != code {
		s.Errorf("got %v, want the code %s", e, code)
	}
	if slices.Contains(executed, e.Executed) {
		return
	}
	s.Errorf("%s: got executed %q, want one of %q", code, e.Executed, executed)
}

func callReply(s *system) {
	w := s.serve(echo("one"))
	b := s.broker()
	reply, err := b.Call(s.within(), asking("42"))
	if err != nil || string(reply.Body) != `{"id":"42","by":"one"}` {
		s.Fatalf("got %s, %v", reply.Body, err)
	}
	live, _ := w.broker.Directory().Find("echo")
	if len(live.Workers) != 1 || reply.Worker != live.Workers[0] {
		s.Errorf("got a reply of worker %q, want one of %q", reply.Worker, live.Workers)
	}
	out, err := faas.Call[answer](s.within(), faas.NewBus(b), ask{"43"})
	if err != nil || out.ID != "43" {
		s.Errorf("faas.Call: got %v, %v", out, err)
	}
}

func sharedByWorkers(s *system) {
	// Each worker has one run at a time, which does not end before the other worker
	// has one, too: neither answers unless both have a call.
	met := make(chan string)
	f := func(by string) contract.Function {
		return onAsk("meet", func(ctx context.Context, in ask) (answer, error) {
			select {
			case met <- by:
			case <-met:
			case <-ctx.Done():
				return answer{}, ctx.Err()
			}
			return answer{in.ID, by}, nil
		}, faas.Concurrency(1))
	}
	s.serve(f("one"))
	s.serve(f("two"))
	b := s.broker()
	by := make(chan string, 2)
	for i := range 2 {
		go func() {
			out, err := faas.Call[answer](s.within(), faas.NewBus(b), ask{fmt.Sprint(i)})
			if err != nil {
				s.Errorf("call: %v", err)
			}
			by <- out.By
		}()
	}
	if x, y := receive(s.T, by, "a reply"), receive(s.T, by, "a reply"); x == y {
		s.Errorf("%q answered both calls that had to run at once", x)
	}
}

func callErrors(s *system) {
	s.serve(onAsk("fail", func(_ context.Context, in ask) (answer, error) {
		switch in.ID {
		case "fields":
			return answer{}, faas.InvalidField("/id", "no such %s", "thing")
		case "notfound":
			return answer{}, fmt.Errorf("look it up: %w", faas.NotFound("no thing %q", "x"))
		case "later":
			return answer{}, faas.RetryAfter(7*time.Second, errors.New("secret inside"))
		case "plain":
			return answer{}, errors.New("secret inside")
		case "panic":
			panic("secret inside")
		case "large":
			in.ID = strings.Repeat("x", contract.MaxReply)
		}
		return answer{ID: in.ID}, nil
	}))
	b := s.broker()
	ran := []contract.Executed{contract.ExecutedYes, ""}
	for id, code := range map[string]contract.Code{
		"fields": contract.CodeInvalid, "notfound": contract.CodeNotFound, "later": contract.CodeUnavailable,
		"plain": contract.CodeInternal, "panic": contract.CodePanic, "large": contract.CodePermanent,
	} {
		e := s.errorOf(s.within(), b, asking(id))
		s.wantError(e, code, ran...)
		if strings.Contains(e.Error(), "secret") || e.Stack != nil {
			s.Errorf("%s: the caller sees internals: %v", id, e)
		}
		switch id {
		case "fields":
			if len(e.Fields) != 1 || e.Fields[0] != (contract.FieldError{Pointer: "/id", Detail: "no such thing"}) {
				s.Errorf("got the fields %v", e.Fields)
			}
		case "notfound":
			if e.Detail != `no thing "x"` {
				s.Errorf("got the detail %q", e.Detail)
			}
		case "later":
			if e.After != 7*time.Second {
				s.Errorf("got after %v, want 7s", e.After)
			}
		}
	}
	bad := asking("")
	bad.Body = []byte(`{"id":3}`)
	if e := s.errorOf(s.within(), b, bad); e.Code != contract.CodeInvalid || len(e.Fields) != 1 || e.Fields[0].Pointer != "/id" {
		s.Errorf("input that does not fit: got %v", e)
	}
	bad.Body = []byte(`{`)
	if e := s.errorOf(s.within(), b, bad); e.Code != contract.CodeMalformed {
		s.Errorf("input that is no JSON: got %v", e)
	}
	if _, err := b.Call(s.within(), asking("fine")); err != nil {
		s.Errorf("a call after the panic: %v", err)
	}
}

func unroutableCall(s *system) {
	e := s.errorOf(s.within(), s.broker(), contract.Call{Key: "unroutable.key", Body: []byte(`{}`)})
	s.wantError(e, contract.CodeUnroutable, contract.ExecutedNo)
}

func unroutableAfterTheLast(s *system) {
	first, second := s.serve(echo("one")), s.serve(echo("two"))
	first.stop()
	b := s.broker()
	if _, err := b.Call(s.within(), asking("1")); err != nil {
		s.Errorf("call with one of two workers gone: %v", err)
	}
	second.stop()
	// RabbitMQ keeps the queue for some time, in case a worker returns. Until then
	// the call waits. It never runs, and its error says so.
	ctx, cancel := context.WithTimeout(s.Context(), 300*time.Millisecond)
	defer cancel()
	e := s.errorOf(ctx, b, asking("2"))
	if e.Code != contract.CodeUnroutable && e.Code != contract.CodeExpired || e.Executed != contract.ExecutedNo && e.Executed != contract.ExecutedUnknown {
		s.Errorf("got %v (executed %q), want unroutable, or expired", e, e.Executed)
	}
}

func expiredNeverStarts(s *system) {
	started, release := make(chan string, 10), make(chan struct{})
	s.serve(onAsk("busy", func(ctx context.Context, in ask) (answer, error) {
		started <- in.ID
		if in.ID == "first" {
			<-release
		}
		return answer{ID: in.ID}, nil
	}, faas.Concurrency(1)))
	b := s.broker()
	first := make(chan error, 1)
	go func() {
		_, err := b.Call(s.within(), asking("first"))
		first <- err
	}()
	receive(s.T, started, "the start of the first call")
	late := asking("late")
	late.Deadline = time.Now().Add(200 * time.Millisecond)
	e := s.errorOf(s.within(), b, late)
	s.wantError(e, contract.CodeExpired, contract.ExecutedNo, contract.ExecutedUnknown)
	past := asking("past")
	past.Deadline = time.Now().Add(-time.Second)
	s.wantError(s.errorOf(s.within(), b, past), contract.CodeExpired, contract.ExecutedNo)
	close(release)
	if err := receive(s.T, first, "the first reply"); err != nil {
		s.Errorf("the first call: %v", err)
	}
	if _, err := b.Call(s.within(), asking("third")); err != nil {
		s.Errorf("the third call: %v", err)
	}
	if id := receive(s.T, started, "the start of the third call"); id != "third" {
		s.Errorf("%q started though it had expired", id)
	}
}

// waiting returns a request function that runs until its ctx is done. It sends to
// started when it starts, and the error of its ctx to ended.
func waiting(started chan<- struct{}, ended chan<- error) contract.Function {
	return onAsk("wait", func(ctx context.Context, _ ask) (answer, error) {
		started <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return answer{}, ctx.Err()
	})
}

func deadlineWhileRunning(s *system) {
	started, ended := make(chan struct{}, 1), make(chan error, 1)
	s.serve(waiting(started, ended))
	b := s.broker()
	r := asking("1")
	r.Deadline = time.Now().Add(500 * time.Millisecond)
	e := s.errorOf(s.within(), b, r)
	s.wantError(e, contract.CodeExpired, contract.ExecutedUnknown)
	receive(s.T, started, "the start")
	_ = receive(s.T, ended, "the end of the function's ctx")
}

func cancelReaches(s *system) {
	started, ended := make(chan struct{}, 1), make(chan error, 1)
	s.serve(waiting(started, ended))
	b := s.broker()
	ctx, cancel := context.WithCancel(s.within())
	failed := make(chan error, 1)
	go func() {
		_, err := b.Call(ctx, asking("1"))
		failed <- err
	}()
	receive(s.T, started, "the start")
	cancel()
	if e := contract.AsError(receive(s.T, failed, "the end of the call")); e == nil || e.Code != contract.CodeCanceled || e.Executed != contract.ExecutedUnknown {
		s.Errorf("got %v, want canceled with executed unknown", e)
	}
	if err := receive(s.T, ended, "the end of the function's ctx"); !errors.Is(err, context.Canceled) {
		s.Errorf("the function's ctx: got %v, want context.Canceled", err)
	}
}

func metadata(s *system) {
	b := s.broker()
	bus := faas.NewBus(b)
	inner := make(chan contract.Meta, 1)
	event := make(chan contract.Event, 1)
	s.serve(
		echoMeta(inner),
		onEvent("follow", into(event), faas.Keys("followed")),
		onOuter(func(ctx context.Context) error {
			if err := bus.Publish(ctx, contract.Event{Key: "followed"}); err != nil {
				return err
			}
			_, err := faas.Call[answer](ctx, bus, ask{"1"})
			return err
		}),
	)
	trace := contract.Trace{Parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", State: "s=1", Baggage: "b=2"}
	body, _ := json.Marshal(outer{})
	if _, err := b.Call(s.within(), contract.Call{Key: outer{}.RoutingKey(), ID: "call-1", Body: body, Trace: trace}); err != nil {
		s.Fatalf("call: %v", err)
	}
	m := receive(s.T, inner, "the inner call")
	if m.Correlation != "call-1" || m.Causation != "call-1" || m.Trace != trace || m.Function != "echo" || m.ID == "call-1" || m.ID == "" {
		s.Errorf("the inner call: got %+v", m)
	}
	e := receive(s.T, event, "the event")
	if e.Correlation != "call-1" || e.Causation != "call-1" || e.Trace != trace {
		s.Errorf("the event: got correlation %q, causation %q, trace %v", e.Correlation, e.Causation, e.Trace)
	}
}

// echoMeta returns a request function that sends the metadata of its call to ch.
func echoMeta(ch chan<- contract.Meta) contract.Function {
	return onAsk("echo", func(ctx context.Context, in ask) (answer, error) {
		ch <- contract.MetaOf(ctx)
		return answer{ID: in.ID}, nil
	})
}

type outer struct{}

func (outer) RoutingKey() string { return "thing.outer" }

// onOuter returns a request function that calls fn, with the input outer.
func onOuter(fn func(context.Context) error, options ...faas.Option) contract.Function {
	var set faas.Set[none]
	faas.OnRequest(&set, "outer", func(ctx context.Context, _ *none, _ outer) (struct{}, error) { return struct{}{}, fn(ctx) }, options...)
	return only(&set)
}

// session checks that the session reaches the function and its changes reach the
// caller, and that functions which it calls receive nothing of it.
func session(s *system) {
	b := s.broker()
	bus := faas.NewBus(b)
	s.serve(
		onAsk("use-session", func(ctx context.Context, in ask) (answer, error) {
			session, user := faas.Session(ctx), ""
			if _, err := session.Get("user", &user); err != nil {
				return answer{}, err
			}
			switch in.ID {
			case "login":
				session.Renew()
				return answer{ID: in.ID, By: user}, session.Set("user", "ada")
			case "fail":
				return answer{}, errors.Join(session.Set("user", "eve"), faas.NotFound("no"))
			}
			return answer{ID: in.ID, By: user}, nil
		}, faas.UsesSession()),
		onOuter(func(ctx context.Context) error {
			out, err := faas.Call[answer](ctx, bus, ask{"read"})
			if err == nil && out.By != "" {
				err = faas.Permanent("the inner function found the user %q", out.By)
			}
			return err
		}, faas.UsesSession()),
	)
	values := fmt.Sprintf(`{"user":"guest","long":%q}`, strings.Repeat("x", contract.MaxSession-100))
	for _, c := range []struct{ id, values, by, change string }{
		{"read", values, "guest", ""},
		{"login", values, "guest", `{"set":{"user":"ada"},"renew":true}`},
		{"login", `{}`, "", `{"set":{"user":"ada"},"renew":true}`},
		{"read", "", "", ""},
	} {
		r := asking(c.id)
		if c.values != "" {
			r.Session = []byte(c.values)
		}
		// Several calls at once may be sent in one message.
		var calls sync.WaitGroup
		for range 8 {
			calls.Go(func() {
				reply, err := b.Call(s.within(), r)
				var out answer
				if err == nil {
					err = json.Unmarshal(reply.Body, &out)
				}
				if err != nil || out.By != c.by || string(reply.Session) != c.change || c.change == "" && reply.Session != nil {
					s.Errorf("%s with %.30s: got %+v, %s, %v; want %q and the change %s", c.id, c.values, out, reply.Session, err, c.by, c.change)
				}
			})
		}
		calls.Wait()
	}
	failing := asking("fail")
	failing.Session = []byte(`{}`)
	if reply, err := b.Call(s.within(), failing); !errors.Is(err, contract.ErrNotFound) || reply.Session != nil {
		s.Errorf("a call that fails: got %v and the change %s", err, reply.Session)
	}
	// A function that changes a session which does not exist fails.
	if e := s.errorOf(s.within(), b, asking("login")); !strings.Contains(e.Detail, "over HTTP") {
		s.Errorf("a change without a session: got %v", e)
	}
	body, _ := json.Marshal(outer{})
	if _, err := b.Call(s.within(), contract.Call{Key: outer{}.RoutingKey(), Body: body, Session: []byte(values)}); err != nil {
		s.Errorf("a function that calls another: %v", err)
	}
}
