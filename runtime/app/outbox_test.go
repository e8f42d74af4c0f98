package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/events"
	"github.com/rabbet-fn/rabbet/functions/stores"
	"github.com/rabbet-fn/rabbet/runtime/brokertest/rabbitmq"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/database/databasetest"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/outbox"
	"github.com/rabbet-fn/rabbet/runtime/rabbit"
)

func service(t *testing.T, variable string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a service")
	}
	url := os.Getenv(variable)
	if url == "" {
		t.Fatalf("set %s, or run scripts/test, which starts one", variable)
	}
	return url
}

// ledger counts what comes of the events that a test stores.
type ledger struct {
	t       *testing.T
	store   *stores.Profiles
	changed chan struct{} // buffers one signal: something has arrived
	stored  atomic.Int64
	mu      sync.Mutex
	got     map[string]int
	delays  []time.Duration // between the save and the arrival
	started time.Time
}

// openLedger opens the database at databaseURL and takes in what is published
// over the broker at amqpURL.
func openLedger(t *testing.T, databaseURL, amqpURL, namespace string) *ledger {
	t.Helper()
	store, err := stores.Open(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	l := &ledger{t: t, store: store, changed: make(chan struct{}, 1), got: map[string]int{}, started: time.Now()}
	var set faas.Set[ledger]
	faas.OnEvent(&set, "count", func(_ context.Context, l *ledger, e contract.Event) error { l.take(e); return nil },
		faas.Keys("profile.updated"), faas.Concurrency(64))
	fns, err := set.With(l)
	if err != nil {
		t.Fatal(err)
	}
	b, err := rabbit.Open(rabbit.Config{URL: amqpURL, Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx, fns) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		b.Close()
	})
	for {
		changed := b.Directory().Changed()
		if live, _ := b.Directory().Find("count"); len(live.Workers) > 0 {
			return l
		}
		select {
		case <-changed:
		case <-time.After(time.Minute):
			t.Fatal("the ledger is not served")
		}
	}
}

func (l *ledger) take(e contract.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.got[e.ID]++; l.got[e.ID] == 1 {
		var saved time.Duration
		if json.Unmarshal(e.Body, &saved) == nil {
			l.delays = append(l.delays, time.Since(l.started)-saved)
		}
	}
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// save stores n events with profiles, several at once, each profile with some.
func (l *ledger) save(n, each int) {
	l.t.Helper()
	const writers = 4
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range n / each / writers {
				var records []outbox.Record
				for range each {
					body, _ := json.Marshal(time.Since(l.started))
					e := contract.Event{Key: "profile.updated", ID: fmt.Sprint(l.stored.Add(1)), Body: body}
					encoded, _ := json.Marshal(e)
					records = append(records, outbox.Record{ID: e.ID, Key: e.Key, Event: encoded})
				}
				profile := events.Profile{ID: fmt.Sprint(rand.N(100)), Name: "n", Email: "e"}
				err := l.store.Save(l.t.Context(), profile, records...)
				for errors.Is(err, stores.ErrUnavailable) { // SQLite's file is locked: what update-profile's caller would do
					err = l.store.Save(l.t.Context(), profile, records...)
				}
				if err != nil {
					l.t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// balance waits until all that was stored has come, and returns how often too
// much of it did.
func (l *ledger) balance() (duplicates int) {
	l.t.Helper()
	patience := time.After(2 * time.Minute)
	for {
		l.mu.Lock()
		got := len(l.got)
		duplicates = -got
		for _, n := range l.got {
			duplicates += n
		}
		l.mu.Unlock()
		if got == int(l.stored.Load()) {
			return duplicates
		}
		select {
		case <-l.changed:
		case <-patience:
			l.t.Fatalf("%d of %d events are lost", int(l.stored.Load())-got, l.stored.Load())
		}
	}
}

// delay returns how long the p-th part of the events took to arrive.
func (l *ledger) delay(p float64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.delays)
	return l.delays[int(p*float64(len(l.delays)-1))].Round(10 * time.Microsecond)
}

// relayProcess is a worker with nothing to do but to relay.
func relayProcess(t *testing.T, databaseURL, amqpURL, namespace string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "worker")
	cmd.Env = append(os.Environ(), asCommand+"=1", "RABBET_FUNCTIONS=get-profile", "RABBET_ADMIN_ADDR=none", "RABBET_LOG_LEVEL=error",
		"RABBET_BROKER_URL="+amqpURL, "RABBET_NAMESPACE="+namespace, "RABBET_DATABASE_URL="+databaseURL)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Error(err)
	}
	return cmd
}

// maxInFlight is how many records a relay has claimed at most.
const maxInFlight = 100

// Two processes relay, and are killed and started again at random moments while
// more is stored: nothing is lost, and no more comes twice than was in flight.
func TestOutboxSurvivesKill9(t *testing.T) {
	amqpURL := service(t, "RABBET_TEST_AMQP_URL")
	for name, database := range map[string]func(t *testing.T) string{
		"sqlite":   func(t *testing.T) string { return "sqlite://" + filepath.Join(t.TempDir(), "test.db") },
		"postgres": func(t *testing.T) string { return databasetest.Postgres(t) },
	} {
		t.Run(name, func(t *testing.T) {
			databaseURL, namespace := database(t), "test-"+contract.NewID()
			l := openLedger(t, databaseURL, amqpURL, namespace)
			relays := []*exec.Cmd{relayProcess(t, databaseURL, amqpURL, namespace), relayProcess(t, databaseURL, amqpURL, namespace)}
			l.save(1000, 1)
			if n := l.balance(); n > 0 {
				t.Errorf("%d events came twice though no relay was killed", n)
			}
			kills, stored := 0, make(chan struct{})
			go func() { defer close(stored); l.save(10_000, 5) }()
			for done := false; !done; kills++ {
				select {
				case <-time.After(time.Second/2 + rand.N(time.Second)):
				case <-stored:
					done = true
				}
				i := rand.N(len(relays))
				relays[i].Process.Kill()
				_ = relays[i].Wait() // it was killed
				relays[i] = relayProcess(t, databaseURL, amqpURL, namespace)
			}
			duplicates := l.balance()
			t.Logf("%d events, %d kills: 0 lost, %d twice", l.stored.Load(), kills, duplicates)
			if duplicates > kills*maxInFlight {
				t.Errorf("%d came twice after %d kills, want at most %d for each", duplicates, kills, maxInFlight)
			}
			for _, r := range relays {
				r.Process.Signal(syscall.SIGTERM)
				if err := r.Wait(); err != nil {
					t.Errorf("a relay ended with %v", err)
				}
			}
		})
	}
}

// While the broker is down, profiles are stored as usual, and their events
// wait for it.
func TestOutboxOutlivesTheBroker(t *testing.T) {
	node := rabbitmq.New(t, rabbitmq.Config{})
	namespace := "test-" + contract.NewID()
	l := openLedger(t, "sqlite://"+filepath.Join(t.TempDir(), "test.db"), node.URL(), namespace)
	b, err := rabbit.Open(rabbit.Config{URL: node.URL(), Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx, cancel := context.WithCancel(context.Background())
	relayed := make(chan struct{})
	go func() {
		defer close(relayed)
		l.store.Outbox().Relay(ctx, outbox.Relay{Publish: outbox.PublishTo(b)})
	}()
	defer func() { cancel(); <-relayed }()
	l.save(200, 1)
	l.balance()
	t.Logf("from the save to the function: median %v, 99th percentile %v", l.delay(0.5), l.delay(0.99))
	if err := node.Remember(t.Context()); err != nil {
		t.Fatal(err)
	}
	node.Kill()
	l.save(600, 1)
	if err := node.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := l.balance(); n > maxInFlight {
		t.Errorf("%d came twice, want at most %d", n, maxInFlight)
	}
	l.save(200, 1)
	l.balance()
}
