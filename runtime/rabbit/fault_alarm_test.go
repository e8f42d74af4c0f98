package rabbit

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// While RabbitMQ is short of memory or disk it reads nothing from connections
// that publish. Publishes and calls fail by their ctx, consumers go on, a
// worker can stop, and afterwards everything is as before.
func TestAlarm(t *testing.T) {
	for _, alarm := range []struct {
		name     string
		on, off  []string
		resource string
	}{
		{"memory", []string{"set_vm_memory_high_watermark", "0.000001"}, []string{"set_vm_memory_high_watermark", "0.4"}, "memory"},
		{"disk", []string{"set_disk_free_limit", "1000000GB"}, []string{"set_disk_free_limit", "1MB"}, "disk"},
	} {
		t.Run(alarm.name, func(t *testing.T) {
			n := ownNode(t)
			cfg := faultConfig(t, n)
			a := newAccount(alarm.name + " alarm")
			b := startCaller(t, cfg)
			const waiting, concurrency = 200, 4
			gate := make(chan struct{})
			var failed atomic.Int32
			fn := onEvent("steady", "steady.on", func(_ context.Context, e *contract.Event) error {
				<-gate
				if e.ID == "fails" && failed.Add(1) == 1 {
					return errors.New("not this time")
				}
				a.processed(e.ID)
				return nil
			})
			fn.Concurrency = concurrency
			_, stop := startWorker(t, cfg, []*Broker{b}, fn, function("echo", echo))
			for i := range waiting {
				publishUntilAccepted(t.Context(), t, b, a, contract.Event{Key: "steady.on", ID: fmt.Sprint(i)})
			}
			publishUntilAccepted(t.Context(), t, b, a, contract.Event{Key: "steady.on", ID: "fails"})

			ctl(t, n, alarm.on...)
			t.Cleanup(func() { ctl(t, n, alarm.off...) })
			// The broker says that it blocks once something is published.
			blockedBy := func(ctx context.Context, id string) error {
				err := b.Publish(ctx, contract.Event{Key: "steady.on", ID: id})
				if errors.Is(err, contract.ErrUnconfirmed) {
					a.mayBeTaken(id)
				} else if err == nil { // the alarm was not up yet
					a.accept(id)
				}
				return err
			}
			i := 0
			until(t, "publishes are blocked", func(context.Context) bool {
				i++
				return errors.Is(blockedBy(within(t, 200*time.Millisecond), fmt.Sprint("early ", i)), contract.ErrBlocked)
			})
			began := time.Now()
			err := blockedBy(within(t, 50*time.Millisecond), "by ctx")
			if took := time.Since(began); !errors.Is(err, contract.ErrBlocked) || executedOf(err) != contract.ExecutedNo || took > 150*time.Millisecond {
				t.Errorf("a publish for 50 ms: got %v (executed %q) after %v, want blocked", err, executedOf(err), took)
			}
			if err := b.Health(); err == nil {
				t.Error("Health: got nil, want the block")
			}
			until(t, "calls are blocked", func(context.Context) bool {
				_, err := b.Call(within(t, 200*time.Millisecond), contract.Call{Key: "echo"})
				return errors.Is(err, contract.ErrBlocked)
			})
			patient := make(chan error, 1)
			go func() {
				err := b.Publish(context.WithoutCancel(t.Context()), contract.Event{Key: "steady.on", ID: "patient"})
				if err == nil {
					a.accept("patient")
				}
				patient <- err
			}()

			close(gate)
			a.await(t, "the consumers go on", func() bool { return len(a.runs) >= waiting })
			until(t, "the queue is empty", func(context.Context) bool { // a publish may have got through late
				time.Sleep(pollInterval)
				return queueLength(t, n.URL(), cfg.Namespace+".event.steady") == 0
			})
			select {
			case err := <-patient:
				t.Errorf("a patient publish: got %v during the alarm", err)
			default:
			}

			ctl(t, n, alarm.off...)
			if err := receive(t, "the patient publish", patient); err != nil {
				t.Errorf("after the alarm: %v", err)
			}
			a.awaitSettled(t) // with the event that failed: its copy had to wait
			until(t, "a call succeeds", func(ctx context.Context) bool {
				_, err := b.Call(ctx, contract.Call{Key: "echo"})
				return err == nil
			})
			until(t, "health", func(context.Context) bool { time.Sleep(pollInterval); return b.Health() == nil })
			stop()
			if runs := failed.Load(); runs != 2 {
				t.Errorf("the event that failed ran %d times, want its copy to wait and not the function to run again", runs)
			}
			a.balance(t, 0, 0)
		})
	}
}

// A process can stop during an alarm: what is blocked does not hold it.
func TestStopDuringAlarm(t *testing.T) {
	n := ownNode(t)
	cfg := faultConfig(t, n)
	b, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Ready(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	release := make(chan struct{})
	begun := make(chan struct{}, 1)
	go func() {
		served <- b.Serve(ctx, []contract.Function{
			onEvent("quiet", "quiet.please", func(context.Context, *contract.Event) error { return nil }),
			function("slow", func(context.Context, *contract.Event) ([]byte, error) {
				begun <- struct{}{}
				<-release
				return make([]byte, 8<<20), nil
			}),
		})
	}()
	awaitWorkers(t, b, "slow", true)
	called := make(chan error, 1)
	go func() {
		_, err := b.Call(context.WithoutCancel(t.Context()), contract.Call{Key: "slow"})
		called <- err
	}()
	receive(t, "the call is under way", begun)
	ctl(t, n, "set_vm_memory_high_watermark", "0.000001")
	t.Cleanup(func() { ctl(t, n, "set_vm_memory_high_watermark", "0.4") })
	stuck := make(chan error, 16)
	for range cap(stuck) { // more than the kernel takes
		go func() {
			stuck <- b.Publish(context.WithoutCancel(t.Context()), contract.Event{Key: "quiet.please", Body: make([]byte, 4<<20)})
		}()
	}
	until(t, "the broker blocks", func(context.Context) bool { time.Sleep(pollInterval); return b.Health() != nil })
	close(release) // its reply is not taken either
	began := time.Now()
	cancel()
	if err := receive(t, "Serve returns", served); err != nil {
		t.Errorf("Serve: %v", err)
	}
	closed := make(chan error, 1)
	go func() { closed <- b.Close() }()
	if err := receive(t, "Close returns", closed); err != nil {
		t.Errorf("Close: %v", err)
	}
	t.Logf("stopped after %v", time.Since(began).Round(time.Millisecond))
	for range cap(stuck) {
		if err := receive(t, "the end of a publish", stuck); err == nil {
			t.Error("a publish succeeded during the alarm")
		}
	}
	if err := receive(t, "the end of the call", called); err == nil {
		t.Error("the call succeeded during the alarm")
	}
}

// What a broker that blocks keeps workers from saying is not taken for their
// death. Also a process that has nothing to say learns of the block, and refuses
// its first call already.
func TestAlarmForgetsNoWorker(t *testing.T) {
	n := ownNode(t)
	cfg := faultConfig(t, n)
	cfg.broadcastCheck = 100 * time.Millisecond
	b := startCaller(t, cfg)
	worker, _ := startWorker(t, cfg, []*Broker{b}, function("echo", echo))
	ctl(t, n, "set_vm_memory_high_watermark", "0.000001")
	t.Cleanup(func() { ctl(t, n, "set_vm_memory_high_watermark", "0.4") })
	until(t, "both processes know of the block", func(context.Context) bool {
		time.Sleep(pollInterval)
		return b.Health() != nil && worker.Health() != nil
	})
	began := time.Now()
	_, err := b.Call(within(t, 10*time.Second), contract.Call{Key: "echo"})
	if took := time.Since(began); !errors.Is(err, contract.ErrBlocked) || executedOf(err) != contract.ExecutedNo || took > time.Second {
		t.Errorf("the first call: got %v (executed %q) after %v, want blocked at once", err, executedOf(err), took)
	}
	hosted := func() bool {
		live, _ := b.Directory().Find("echo")
		return len(live.Workers) == 1
	}
	if b.presence.Expire(time.Now().Add(time.Hour)); !hosted() {
		t.Error("the worker was forgotten during the alarm")
	}
	ctl(t, n, "set_vm_memory_high_watermark", "0.4")
	until(t, "a call succeeds", func(ctx context.Context) bool {
		time.Sleep(pollInterval)
		_, err := b.Call(ctx, contract.Call{Key: "echo"})
		if errors.Is(err, contract.ErrUnroutable) {
			t.Errorf("after the alarm: %v", err)
		}
		return err == nil
	})
	freed := time.Now()
	if b.presence.Expire(freed.Add(contract.AnnounceTimeout - time.Second)); !hosted() {
		t.Error("the worker was forgotten before it could say anything")
	}
	if b.presence.Expire(freed.Add(time.Hour)); hosted() {
		t.Error("the worker is remembered for ever")
	}
}

// queueLength is how many messages wait in the queue of the broker there.
func queueLength(t testing.TB, url, queue string) int {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return q.Messages
}
