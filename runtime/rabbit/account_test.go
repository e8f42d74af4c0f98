package rabbit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/deadletter"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// account keeps the books on every event of a test, by its id.
type account struct {
	name string

	mu       sync.Mutex
	accepted map[string]bool // Publish returned nil
	unknown  map[string]bool // Publish could not say, at least once
	runs     map[string]int  // how often a function has processed it
	dead     map[string]int  // how often it came to the dead letters
	open     int             // accepted, and neither processed nor dead yet
	changed  chan struct{}   // closed when any of this changes
}

func newAccount(name string) *account {
	return &account{
		name: name, accepted: map[string]bool{}, unknown: map[string]bool{},
		runs: map[string]int{}, dead: map[string]int{}, changed: make(chan struct{}),
	}
}

// note changes the books by change, which is called with a.mu held.
func (a *account) note(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *account) settled(id string) bool { return a.runs[id] > 0 || a.dead[id] > 0 }

func (a *account) accept(id string) {
	a.note(func() {
		if !a.accepted[id] {
			a.accepted[id] = true
			if !a.settled(id) {
				a.open++
			}
		}
	})
}

func (a *account) mayBeTaken(id string) { a.note(func() { a.unknown[id] = true }) }

// processed is called by functions at their very end.
func (a *account) processed(id string) {
	a.note(func() {
		if a.accepted[id] && !a.settled(id) {
			a.open--
		}
		a.runs[id]++
	})
}

func (a *account) buried(id string) {
	a.note(func() {
		if a.accepted[id] && !a.settled(id) {
			a.open--
		}
		a.dead[id]++
	})
}

// await waits until reached holds, which is called with a.mu held.
func (a *account) await(t testing.TB, what string, reached func() bool) {
	t.Helper()
	late := time.After(60 * time.Second)
	for {
		a.mu.Lock()
		ok, changed := reached(), a.changed
		a.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("%s: waited in vain: %s\n%v", a.name, what, a)
		}
	}
}

// awaitAccepted waits until n events were accepted.
func (a *account) awaitAccepted(t testing.TB, n int) {
	t.Helper()
	a.await(t, fmt.Sprintf("%d events are accepted", n), func() bool { return len(a.accepted) >= n })
}

// awaitSettled waits until every accepted event was processed, or is dead.
func (a *account) awaitSettled(t testing.TB) {
	t.Helper()
	a.await(t, "every accepted event is processed or dead", func() bool { return a.open == 0 })
}

// duplicates is how often an event was processed once more.
func (a *account) duplicates() int {
	n := 0
	for _, runs := range a.runs {
		n += max(0, runs-1)
	}
	return n
}

func (a *account) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	unknown := 0
	for id := range a.unknown {
		if !a.accepted[id] {
			unknown++
		}
	}
	return fmt.Sprintf("accepted %d, unknown %d, processed %d, duplicates %d, dead %d, missing %d",
		len(a.accepted), unknown, len(a.runs), a.duplicates(), len(a.dead), a.open)
}

// balance closes the books: nothing accepted is missing, nothing came that
// nobody had published, and no more than duplicates and dead.
func (a *account) balance(t testing.TB, duplicates, dead int) {
	t.Helper()
	t.Logf("%s: %v (duplicates allowed: %d)", a.name, a, duplicates)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open > 0 {
		t.Errorf("%s: %d accepted events are lost", a.name, a.open)
	}
	if n := a.duplicates(); n > duplicates {
		t.Errorf("%s: %d duplicates, want at most the %d that were in flight", a.name, n, duplicates)
	}
	if len(a.dead) != dead {
		t.Errorf("%s: %d dead letters, want %d", a.name, len(a.dead), dead)
	}
	for id := range a.runs {
		if !a.accepted[id] && !a.unknown[id] {
			t.Errorf("%s: event %s was processed, and nobody had published it", a.name, id)
		}
	}
}

// load publishes events with the key from several goroutines at once, each
// event until it is accepted, until total are accepted or the test ends.
type load struct {
	publishers sync.WaitGroup
	stop       context.CancelFunc
}

const loadPublishers = 16

func startLoad(t testing.TB, b *Broker, a *account, key string, total int) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{stop: cancel}
	t.Cleanup(func() {
		cancel()
		l.publishers.Wait()
	})
	for p := range loadPublishers {
		l.publishers.Go(func() {
			for i := p; i < total && ctx.Err() == nil; i += loadPublishers {
				publishUntilAccepted(ctx, t, b, a, contract.Event{Key: key, ID: fmt.Sprintf("%s-%06d", key, i)})
			}
		})
	}
	return l
}

// wait returns when all is accepted.
func (l *load) wait() { l.publishers.Wait() }

// publishUntilAccepted publishes e until the broker takes it: again after each
// failure that another try can mend, as a program has to.
func publishUntilAccepted(ctx context.Context, t testing.TB, b *Broker, a *account, e contract.Event) {
	for ctx.Err() == nil {
		err := b.Publish(ctx, e)
		switch {
		case err == nil:
			a.accept(e.ID)
			return
		case errors.Is(err, contract.ErrUnconfirmed):
			a.mayBeTaken(e.ID)
		case errors.Is(err, contract.ErrUnavailable), errors.Is(err, contract.ErrBlocked), errors.Is(err, contract.ErrRefused):
		default:
			t.Errorf("publish %s: %v", e.ID, err)
			return
		}
		pause := time.NewTimer(10 * time.Millisecond)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// counted is an event function on key that keeps the books.
func counted(a *account, key string, concurrency int) contract.Function {
	fn := onEvent(strings.ReplaceAll(key, ".", "-"), key, func(_ context.Context, e *contract.Event) error {
		a.processed(e.ID)
		return nil
	})
	fn.Concurrency = concurrency
	return fn
}

// mixed is counted, but some events fail at first and some always: by the last
// two digits of their id.
func mixed(a *account, key string, concurrency int) contract.Function {
	fn := counted(a, key, concurrency)
	fn.Handle = func(_ context.Context, e *contract.Event) ([]byte, error) {
		switch {
		case strings.HasSuffix(e.ID, failsOnce) && e.Attempt == 1:
			return nil, errors.New("not yet")
		case strings.HasSuffix(e.ID, failsAlways):
			return nil, faas.Permanent("never")
		}
		a.processed(e.ID)
		return nil, nil
	}
	return fn
}

const failsOnce, failsAlways = "07", "13"

// bury takes in the dead letters of mixed at url, until stop is called.
func (a *account) bury(t testing.TB, url, queue string) (stop func()) {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	letters, err := ch.Consume(queue, "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	var burying sync.WaitGroup
	burying.Go(func() {
		for d := range letters {
			if !strings.HasSuffix(d.MessageId, failsAlways) {
				t.Errorf("%s: %s is a dead letter (%s: %s)", a.name, d.MessageId, wire.String(d.Headers, deadletter.HeaderDeadReason), wire.String(d.Headers, deadletter.HeaderDeadError))
			}
			a.buried(d.MessageId)
		}
	})
	return func() {
		_ = conn.Close()
		burying.Wait()
	}
}
