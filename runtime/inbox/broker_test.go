package inbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/inbox/redis"
	"github.com/rabbet-fn/rabbet/runtime/memory"
	"github.com/rabbet-fn/rabbet/runtime/rabbit"
)

// serve hosts f on b until the test ends.
func serve(t *testing.T, b interface {
	Serve(context.Context, []contract.Function) error
}, f contract.Function) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, []contract.Function{f}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

func receive[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-within(t).Done():
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// Copies of events at two workers at once: each key succeeds once, those whose
// first attempts fail included.
func TestManyCopiesOneEffect(t *testing.T) {
	const events, copies = 100, 6
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			settled := make(chan contract.Invocation, 10_000)
			b := memory.New(memory.Config{Observe: func(i contract.Invocation) { settled <- i }})
			t.Cleanup(func() { b.Close() })
			shared, namespace := open(t), "test-"+contract.NewID()
			var effects, failures [events]atomic.Int32
			for range 2 { // inboxes of two workers
				serve(t, b, once(New(shared, Config{Namespace: namespace, Lease: 3 * time.Second}), func(_ context.Context, e contract.Event) error {
					n, err := strconv.Atoi(e.ID)
					if err != nil {
						return faas.Permanent("%w", err)
					}
					time.Sleep(rand.N(2 * time.Millisecond)) // it does something
					if n%3 == 0 && failures[n].Add(1) <= 2 {
						return errors.New("not yet")
					}
					effects[n].Add(1)
					return nil
				}, contract.Retry{Max: 3, First: time.Millisecond}))
			}
			var publishers sync.WaitGroup
			for range copies {
				publishers.Go(func() {
					for _, n := range rand.Perm(events) {
						for errors.Is(b.Publish(t.Context(), contract.Event{Key: "act.now", ID: strconv.Itoa(n)}), contract.ErrUnroutable) {
							time.Sleep(time.Millisecond) // the workers are about to come
						}
					}
				})
			}
			publishers.Wait()
			for done := 0; done < events*copies; {
				switch i := receive(t, "an outcome", settled); i.Outcome {
				case contract.OutcomeDone:
					done++
				case contract.OutcomeDead:
					t.Fatalf("%s is dead: %v", i.ID, i.Err)
				}
			}
			for n := range effects {
				if got := effects[n].Load(); got != 1 {
					t.Errorf("event %d had its effect %d times, want once", n, got)
				}
			}
		})
	}
}

// crashed names the broker, the namespace and the store of a worker to crash.
const (
	crashAMQP      = "INBOX_TEST_AMQP"
	crashRedis     = "INBOX_TEST_REDIS"
	crashNamespace = "INBOX_TEST_NAMESPACE"
	crashLease     = 4 * time.Second
)

// hang is a worker that never finishes.
func hang() {
	keys, err := redis.Open(os.Getenv(crashRedis))
	if err != nil {
		panic(err)
	}
	namespace := os.Getenv(crashNamespace)
	b, err := rabbit.Open(rabbit.Config{URL: os.Getenv(crashAMQP), Namespace: namespace})
	if err != nil {
		panic(err)
	}
	_ = b.Serve(context.Background(), []contract.Function{once(New(keys, Config{Namespace: namespace, Lease: crashLease}), func(context.Context, contract.Event) error {
		fmt.Println("started")
		select {}
	})})
}

// The worker that runs it is killed: the event comes again at once, waits until
// the lease has expired, and runs, as the first attempt.
func TestCrash(t *testing.T) {
	amqpURL, redisURL := service(t, "RABBET_TEST_AMQP_URL"), service(t, "RABBET_TEST_REDIS_URL")
	namespace := "test-" + contract.NewID()
	victim := exec.Command(os.Args[0])
	victim.Env = append(os.Environ(), "INBOX_TEST_WORKER=1", crashAMQP+"="+amqpURL, crashRedis+"="+redisURL, crashNamespace+"="+namespace)
	victim.Stderr = os.Stderr
	said, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	kill := sync.OnceFunc(func() {
		victim.Process.Kill()
		io.Copy(io.Discard, said)
		_ = victim.Wait() // it was killed
	})
	t.Cleanup(kill)

	outcomes, ran := make(chan contract.Invocation, 1000), make(chan contract.Event, 10)
	b, err := rabbit.Open(rabbit.Config{URL: amqpURL, Namespace: namespace, Observe: func(i contract.Invocation) { outcomes <- i }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	publish := func() {
		for ctx := within(t); ; {
			err := b.Publish(ctx, contract.Event{Key: "act.now", ID: "one"})
			if err == nil {
				return
			}
			if !errors.Is(err, contract.ErrUnroutable) {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond) // the victim is about to come
		}
	}
	publish()
	if line, err := bufio.NewReader(said).ReadString('\n'); line != "started\n" {
		t.Fatalf("the victim said %q, %v", line, err)
	}
	serve(t, b, once(New(openRedis(t, redisURL), Config{Namespace: namespace, Lease: crashLease}), func(_ context.Context, e contract.Event) error {
		ran <- e
		return nil
	}, contract.Retry{Max: 1}))
	publish() // a copy, while the first is being handled
	wantPostponed(t, receive(t, "the copy to be put off", outcomes).Err)
	select {
	case e := <-ran:
		t.Fatalf("it ran while the victim had it: %+v", e)
	default:
	}
	kill()
	if e := receive(t, "the run after the crash", ran); e.ID != "one" || e.Attempt != 1 {
		t.Errorf("got %s on attempt %d, want one on attempt 1", e.ID, e.Attempt)
	}
	for done := 0; done < 2; {
		if i := receive(t, "an outcome", outcomes); i.Outcome == contract.OutcomeDone {
			done++
		} else if i.Outcome == contract.OutcomeDead {
			t.Fatalf("it is dead: %v", i.Err)
		}
	}
	if len(ran) > 0 {
		t.Error("the copy ran as well")
	}
}

// redisServer is a Redis of the test's own, on one port and folder for all its lives.
type redisServer struct {
	t    *testing.T
	args []string
	port string
	cmd  *exec.Cmd
}

// startRedis starts one with the given settings, which ends with the test.
func startRedis(t *testing.T, args ...string) *redisServer {
	if testing.Short() {
		t.Skip("needs redis-server")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	s := &redisServer{t: t, port: port, args: append([]string{"--bind", "127.0.0.1", "--port", port, "--dir", t.TempDir(), "--save", ""}, args...)}
	t.Cleanup(s.kill)
	s.start()
	return s
}

func (s *redisServer) url() string { return "redis://127.0.0.1:" + s.port + "/0" }

// start waits until the server answers.
func (s *redisServer) start() {
	s.t.Helper()
	s.cmd = exec.Command("redis-server", s.args...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("start Redis (scripts/test installs it): %v", err)
	}
	client := s.client()
	for ctx := within(s.t); client.Ping(ctx).Err() != nil; {
		if ctx.Err() != nil {
			s.t.Fatal("Redis did not start")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (s *redisServer) client() *goredis.Client {
	client := goredis.NewClient(&goredis.Options{Addr: "127.0.0.1:" + s.port})
	s.t.Cleanup(func() { client.Close() })
	return client
}

func (s *redisServer) kill() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		_ = s.cmd.Wait() // it was killed
		s.cmd = nil
	}
}

// While Redis is away events wait, and none is counted as an attempt; what was
// done before is known after it.
func TestRedisRestart(t *testing.T) {
	server := startRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	outcomes, ran := make(chan contract.Invocation, 1000), make(chan string, 10)
	b := memory.New(memory.Config{Observe: func(i contract.Invocation) { outcomes <- i }})
	t.Cleanup(func() { b.Close() })
	inbox := New(openRedis(t, server.url()), Config{Timeout: 100 * time.Millisecond, Delay: 100 * time.Millisecond})
	serve(t, b, once(inbox, func(_ context.Context, e contract.Event) error {
		ran <- e.ID
		return nil
	}, contract.Retry{Max: 1}))
	publish := func(id string) {
		for errors.Is(b.Publish(t.Context(), contract.Event{Key: "act.now", ID: id}), contract.ErrUnroutable) {
			time.Sleep(time.Millisecond) // the worker is about to come
		}
	}
	publish("before")
	if id := receive(t, "the event before", ran); id != "before" {
		t.Errorf("got %s", id)
	}
	receive(t, "its outcome", outcomes)
	server.kill()
	publish("meanwhile")
	publish("before") // a copy
	for range 4 {
		wantPostponed(t, receive(t, "an event to be put off", outcomes).Err)
	}
	server.start()
	if id := receive(t, "the event that waited", ran); id != "meanwhile" {
		t.Errorf("got %s, want meanwhile", id)
	}
	for done := 0; done < 2; {
		if i := receive(t, "an outcome", outcomes); i.Outcome == contract.OutcomeDone {
			done++
		}
	}
	if len(ran) > 0 {
		t.Errorf("%s ran again", <-ran)
	}
}

// A Redis that forgets while a function runs: the run takes its key back, and
// is the only one.
func TestRedisLosesItsData(t *testing.T) {
	server := startRedis(t, "--appendonly", "no")
	keys, client := openRedis(t, server.url()), server.client()
	inbox := New(keys, Config{Lease: 3 * time.Second})
	started, release := make(chan struct{}, 2), make(chan struct{})
	f := once(inbox, func(context.Context, contract.Event) error {
		started <- struct{}{}
		<-release
		return nil
	})
	ended := make(chan error, 1)
	go func() { ended <- deliver(&f, "one") }()
	receive(t, "the start", started)
	server.kill()
	server.start()
	key := inbox.keyOf("act", `["act.now","","one"]`)
	for ctx := within(t); client.Exists(ctx, key).Val() == 0; {
		if ctx.Err() != nil {
			t.Fatal("the run did not take its key back")
		}
		time.Sleep(10 * time.Millisecond)
	}
	wantPostponed(t, deliver(&f, "one"))
	close(release)
	if err := receive(t, "the end", ended); err != nil {
		t.Error(err)
	}
	if err := deliver(&f, "one"); err != nil || len(started) > 0 {
		t.Errorf("after it: got %v, and %d more runs", err, len(started))
	}
	if why := keys.DataLossRisk(within(t)); why == "" {
		t.Error("nothing is said about a Redis that forgets")
	}
}
