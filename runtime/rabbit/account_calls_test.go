package rabbit

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// callAccount keeps the books on every call of a test: how often it ran, and
// what its caller was told.
type callAccount struct {
	name string

	mu      sync.Mutex
	runs    map[string]int
	made    int
	answers map[string]error // by id; nil: it was answered
	changed chan struct{}    // closed when made changes
}

func newCallAccount(name string) *callAccount {
	return &callAccount{name: name, runs: map[string]int{}, answers: map[string]error{}, changed: make(chan struct{})}
}

// ran is called by functions at their very beginning.
func (c *callAccount) ran(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs[id]++
}

// functions are "again", which may run more than once, and "once".
func (c *callAccount) functions() []contract.Function {
	answer := func(_ context.Context, e *contract.Event) ([]byte, error) {
		c.ran(e.ID)
		return e.Body, nil
	}
	return []contract.Function{function("again", answer, readOnly), function("once", answer)}
}

// callers call both functions from several goroutines at once until stop is called.
func (c *callAccount) callers(t testing.TB, b *Broker) (stop func()) {
	var g sync.WaitGroup
	over := make(chan struct{})
	// Who waits for a call that died with its worker learns of it by the deadline.
	patience := map[string]time.Duration{"once": 2 * time.Second, "again": 30 * time.Second}
	for p := range 4 {
		key := []string{"again", "once"}[p%2]
		g.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				id := fmt.Sprintf("%s-%d-%d", key, p, i)
				reply, err := b.Call(context.WithoutCancel(t.Context()), contract.Call{
					Key: key, ID: id, Body: []byte(id), Deadline: time.Now().Add(patience[key]),
				})
				if err == nil && string(reply.Body) != id {
					t.Errorf("%s got the reply %q", id, reply.Body)
				}
				c.mu.Lock()
				c.answers[id] = err
				c.made++
				close(c.changed)
				c.changed = make(chan struct{})
				c.mu.Unlock()
				if time.Sleep(10 * time.Millisecond); err != nil { // as a program does that is told so
					time.Sleep(50 * time.Millisecond)
				}
			}
		})
	}
	stop = sync.OnceFunc(func() {
		close(over)
		g.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// await waits until n more calls have ended.
func (c *callAccount) await(t testing.TB, n int) {
	t.Helper()
	late := time.After(60 * time.Second)
	c.mu.Lock()
	until := c.made + n
	c.mu.Unlock()
	for {
		c.mu.Lock()
		made, changed := c.made, c.changed
		c.mu.Unlock()
		if made >= until {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("%s: %d of %d calls have ended after 60 s", c.name, made-until+n, n)
		}
	}
}

// balance closes the books: who was answered has run, what must not run twice
// did not, and what its caller was told did not run did not. failed is how many
// calls may have failed of those that may run again.
func (c *callAccount) balance(t testing.TB, failed int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	answered, unknown, twice, again := 0, 0, 0, 0
	for id, err := range c.answers {
		runs, once := c.runs[id], id[:4] == "once"
		switch executed := executedOf(err); {
		case err == nil:
			answered++
			if runs == 0 {
				t.Errorf("%s: %s was answered and did not run", c.name, id)
			}
		case executed == contract.ExecutedNo && runs > 0:
			t.Errorf("%s: %s ran, and its caller was told that it did not: %v", c.name, id, err)
		case executed == contract.ExecutedUnknown:
			unknown++
		case executed != contract.ExecutedNo:
			t.Errorf("%s: %s failed with %v (executed %q), want to be told whether it ran", c.name, id, err, executed)
		}
		if runs > 1 && once {
			t.Errorf("%s: %s ran %d times", c.name, id, runs)
		}
		if runs > 1 {
			twice++
		}
		if err != nil && !once {
			if again++; again > failed {
				t.Errorf("%s: %s failed: %v (executed %q)", c.name, id, err, executedOf(err))
			}
		}
	}
	t.Logf("%s: calls %d, answered %d, unknown %d, not executed %d, run twice %d", c.name, c.made, answered, unknown, c.made-answered-unknown, twice)
}
