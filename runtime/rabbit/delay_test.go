package rabbit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/delay"
)

func TestTierFor(t *testing.T) {
	for _, c := range []struct{ wait, slack, want time.Duration }{
		{time.Millisecond, delay.Precision, 100 * time.Millisecond}, {100 * time.Millisecond, delay.Precision, 100 * time.Millisecond},
		{101 * time.Millisecond, delay.Precision, 125 * time.Millisecond}, {100 * time.Millisecond, 0, 100 * time.Millisecond},
		{150 * time.Millisecond, 0, 125 * time.Millisecond}, {1901 * time.Millisecond, delay.Precision, 2 * time.Second},
		{1900 * time.Millisecond, delay.Precision, 2 * time.Second}, {1899 * time.Millisecond, delay.Precision, 1600 * time.Millisecond},
		{1900 * time.Millisecond, 190 * time.Millisecond, 2 * time.Second}, {45 * time.Second, delay.Precision, 30 * time.Second},
		{23 * time.Hour, delay.Precision, 4 * time.Hour}, {30 * 24 * time.Hour, delay.Precision, 24 * time.Hour},
	} {
		if got := delay.TierFor(c.wait, c.slack); got.Length() != c.want {
			t.Errorf("tierFor(%v, %v): got %s, want %v", c.wait, c.slack, got.Name(), c.want)
		}
	}
}

// The names of tiers are read again by other processes, and differ from those of
// earlier versions, which ended with a unit.
func TestTierNames(t *testing.T) {
	for _, want := range delay.Tiers {
		if got, ok := delay.ParseTier(want.Name()); !ok || got != want {
			t.Errorf("parseTier(%q): got %v, %v", want.Name(), got.Length(), ok)
		}
	}
	for _, name := range []string{"", "2s", "101", "-100", "0"} {
		if got, ok := delay.ParseTier(name); ok {
			t.Errorf("parseTier(%q): got %v, want none", name, got.Length())
		}
	}
}

// A retry waits in one tier, up to ten seconds, and at most as much longer as
// retrySlack says.
func TestRetryWaitsOnce(t *testing.T) {
	for range 2000 {
		wait := 100*time.Millisecond + rand.N(9900*time.Millisecond)
		slack := time.Duration(delay.RetrySlack * float64(wait))
		if length := delay.TierFor(wait, slack).Length(); length < wait || length > wait+slack {
			t.Errorf("%v: got a tier of %v", wait, length)
		}
	}
}

// Delays up to the longest are followed hop by hop, each of which takes a
// little longer than its tier says: never early, late by the grain and one hop.
func TestLongDelays(t *testing.T) {
	const hop = 20 * time.Millisecond // the way through the broker
	most := 0
	for _, wait := range append([]time.Duration{
		0, 1, time.Millisecond, delay.Precision - 1, delay.Precision, delay.Precision + 1, 199 * time.Millisecond, 999 * time.Millisecond,
		59 * time.Second, 23*time.Hour + 59*time.Minute + 59*time.Second, contract.MaxDelay - 1, contract.MaxDelay,
	}, randomDelays(2000, contract.MaxDelay)...) {
		waited, hops := time.Duration(0), 0
		for waited < wait {
			length := delay.TierFor(wait-waited, delay.Precision).Length()
			waited += length + hop
			hops++
		}
		if late := waited - wait; late > delay.Precision+hop {
			t.Errorf("%v: late by %v after %d hops, want at most %v", wait, late, hops, delay.Precision+hop)
		}
		most = max(most, hops)
	}
	if most > 60 {
		t.Errorf("a delay takes up to %d hops, want at most 60", most)
	}
}

func randomDelays(n int, most time.Duration) (list []time.Duration) {
	for range n {
		list = append(list, rand.N(most))
	}
	return list
}

// clocked records when events come that were published with a delay.
type clocked struct {
	t   *testing.T
	mu  sync.Mutex
	due map[string]time.Time
	at  map[string]time.Time
	all chan struct{} // closed when all have come
}

func (c *clocked) take(_ context.Context, e *contract.Event) error {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if early := c.due[e.ID].Sub(now); early > 0 {
		c.t.Errorf("%s came %v early", e.ID, early)
	}
	if e.Attempt != 1 {
		c.t.Errorf("%s: attempt %d, want 1: a delay burns none", e.ID, e.Attempt)
	}
	if _, twice := c.at[e.ID]; !twice {
		if c.at[e.ID] = now; len(c.at) == len(c.due) {
			close(c.all)
		}
	}
	return nil
}

// publish publishes an event for each delay.
func (c *clocked) publish(b *Broker, delays []time.Duration) {
	c.t.Helper()
	now := time.Now()
	c.mu.Lock()
	c.due, c.at, c.all = map[string]time.Time{}, map[string]time.Time{}, make(chan struct{})
	for n, d := range delays {
		c.due[fmt.Sprint(n)] = now.Add(d)
	}
	c.mu.Unlock()
	var all sync.WaitGroup
	for n, d := range delays {
		all.Go(func() {
			if err := b.Publish(c.t.Context(), contract.Event{Key: "late.run", ID: fmt.Sprint(n), NotBefore: now.Add(d)}); err != nil {
				c.t.Error(err)
			}
		})
	}
	all.Wait()
}

// lateness waits until all have come, and returns how late each was, in order.
func (c *clocked) lateness() (late []time.Duration) {
	c.t.Helper()
	select {
	case <-c.all:
	case <-within(c.t, 2*time.Minute).Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var missing []string
	for id, due := range c.due {
		if _, came := c.at[id]; !came {
			missing = append(missing, id+" due at "+due.Format(time.StampMilli))
		}
	}
	if len(missing) > 0 {
		c.t.Fatalf("%d of %d came; missing at %s: %q", len(c.at), len(c.due), time.Now().Format(time.StampMilli), missing)
	}
	for id, at := range c.at {
		late = append(late, at.Sub(c.due[id]))
	}
	slices.Sort(late)
	return late
}

func TestDelays(t *testing.T) {
	c := &clocked{t: t}
	b := openBroker(t)
	serve(t, b, onEvent("late", "late.run", c.take))
	// The tiers are there from then on.
	c.publish(b, []time.Duration{2 * time.Second})
	c.lateness()
	c.publish(b, randomDelays(300, 3*time.Second))
	late := c.lateness()
	t.Logf("late: median %v, 90 %% within %v, all within %v (grain %v)", late[150], late[270], late[299], delay.Precision)
	if late[299] > 30*time.Second { // a busy machine is allowed for
		t.Errorf("late by %v, want about %v", late[299], delay.Precision)
	}
}

// The broker is killed while events wait in it.
func TestDelaysSurviveABrokerRestart(t *testing.T) {
	node := ownNode(t)
	c := &clocked{t: t}
	b := openBroker(t, func(c *Config) { c.URL = node.URL() })
	serve(t, b, onEvent("late", "late.run", c.take))
	for _, tier := range delay.Tiers {
		if tier.Length() > 10*time.Second { // no more will be used
			break
		}
		if err := b.delays.EnsureTier(t.Context(), tier); err != nil {
			t.Fatal(err)
		}
	}
	if err := node.Remember(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	c.publish(b, append(randomDelays(200, 5*time.Second), 11*time.Second))
	node.Kill()
	restart(t, node)
	if late := c.lateness(); len(late) != 201 {
		t.Errorf("%d came, want 201", len(late))
	}
}
