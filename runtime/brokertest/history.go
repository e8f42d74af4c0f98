package brokertest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// A History says how RunHistory uses a broker. All fields are required.
type History struct {
	// Broker returns a broker for a caller, and closes it in t.Cleanup. It is
	// called twice.
	Broker func(t *testing.T) Broker

	// Workers starts workers that host RegisterFunctions(socket), and kills, pauses
	// and disconnects them as it likes, until ctx is done. It returns when no worker
	// runs any more.
	Workers func(ctx context.Context, socket string)
}

// RunHistory checks what callers see while workers are lost. 128 clients read and
// write the same few registers at the same time. The test fails unless
//
//   - no read returns a value that was overwritten before the read began: if a
//     write was answered, a second write of the same register began after that and
//     was answered, and the read began after both, then the read does not return
//     the value of the first write;
//   - a call that has been answered is not delivered again;
//   - a call whose error says that it was not executed has not run;
//   - a call of a function that is not redelivered runs at most once.
//
// A write whose outcome is unknown may take effect at any time, or never.
func RunHistory(t *testing.T, h History) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "registers")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	r := &registers{values: map[string]string{}, begun: map[string][]run{}}
	served := make(chan struct{})
	go func() {
		defer close(served)
		r.serve(l)
	}()
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		h.Workers(ctx, socket)
	}()
	callers := [2]Broker{h.Broker(t), h.Broker(t)}
	awaitRegisters(t, callers[:])

	began := time.Now()
	history := recordHistory(t.Context(), callers, historyLength(t))
	took := time.Since(began)
	stop()
	<-stopped
	_ = l.Close()
	<-served

	counts := map[outcome]int{}
	for _, o := range history {
		counts[o.outcome]++
	}
	found := checkHistory(history, r.begun)
	t.Logf("%d operations in %v: answered %d, not executed %d, unknown %d; anomalies %d",
		len(history), took.Round(time.Millisecond), counts[answered], counts[notExecuted], counts[unknown], len(found))
	for i, anomaly := range found {
		if t.Error(anomaly); i == 20 {
			t.Fatal("there are more anomalies")
		}
	}
}

// awaitRegisters waits until the callers have all functions in their directory.
// historyLength is the number of operations of a history: 30,000, or 10,000 with
// -short, or the value of RABBET_TEST_HISTORY.
func historyLength(t *testing.T) int {
	t.Helper()
	text := os.Getenv("RABBET_TEST_HISTORY")
	switch {
	case text == "" && testing.Short():
		return 10_000
	case text == "":
		return 30_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("RABBET_TEST_HISTORY=%q: write a number of operations", text)
	}
	return n
}

func awaitRegisters(t *testing.T, callers []Broker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, b := range callers {
		for _, name := range []string{"read-register", "write-register", "replace-register"} {
			for {
				changed := b.Directory().Changed()
				if f, _ := b.Directory().Find(name); len(f.Workers) > 0 {
					break
				}
				select {
				case <-changed:
				case <-ctx.Done():
					t.Fatalf("no worker hosts %s", name)
				}
			}
		}
	}
}

// An outcome is how an operation ended.
type outcome int

const (
	answered outcome = iota
	notExecuted
	unknown
)

// An operation is one read or write.
type operation struct {
	register    string
	write, once bool   // once: the function is not redelivered
	value       string // that of a write is unique
	start, end  time.Time
	outcome     outcome
	err         error
}

// How a history is recorded.
const (
	historyClients   = 128
	historyRegisters = 12
	historyTimeout   = 2 * time.Second // of one call
)

// recordHistory makes the given number of operations and returns them. Half of
// the registers are written by a function that is redelivered. They are not read:
// the lost run of such a write may overwrite a later write.
func recordHistory(ctx context.Context, callers [2]Broker, operations int) []operation {
	var made atomic.Int64
	var clients sync.WaitGroup
	histories := make([][]operation, historyClients)
	for c := range histories {
		clients.Go(func() {
			for i := 0; int(made.Add(1)) <= operations; i++ {
				o := operation{register: fmt.Sprint(rand.IntN(historyRegisters)), start: time.Now()}
				key, body := "register.read", map[string]string{"name": o.register}
				switch n := rand.IntN(10); {
				case n < 4:
					o.write, o.once = true, true
					key = "register.write"
				case n == 4:
					o.write = true
					o.register = "replaced-" + o.register
					key = "register.replace"
				}
				if o.write {
					o.value = fmt.Sprintf("%d-%d", c, i)
					body = map[string]string{"name": o.register, "value": o.value}
				}
				o.call(ctx, callers[rand.IntN(len(callers))], key, body)
				histories[c] = append(histories[c], o)
			}
		})
	}
	clients.Wait()
	return slices.Concat(histories...)
}

// call makes the call of o and sets what is known afterwards.
func (o *operation) call(ctx context.Context, b Broker, key string, in map[string]string) {
	body, err := json.Marshal(in)
	if err != nil {
		panic(err) // cannot happen: it is a map of strings
	}
	reply, err := b.Call(ctx, contract.Call{Key: key, Body: body, Deadline: o.start.Add(historyTimeout)})
	o.end, o.err = time.Now(), err
	e, _ := errors.AsType[*contract.Error](err)
	switch {
	case err == nil && !o.write:
		if err := json.Unmarshal(reply.Body, &o.value); err != nil {
			o.value = "no value: " + string(reply.Body)
		}
	case err == nil:
	case e != nil && e.Executed == contract.ExecutedNo:
		o.outcome = notExecuted
	default:
		o.outcome = unknown
	}
}

// lastRun returns when the last run of a write began. If a function that is
// redelivered ran more than once, first attempts do not count: the worker may have
// lost the delivery without having noticed it.
func (o *operation) lastRun(runs []run) (last time.Time) {
	for _, r := range runs {
		if r.began.After(last) && (o.once || r.attempt > 1 || len(runs) == 1) {
			last = r.began
		}
	}
	return last
}

// checkHistory returns the anomalies in a history, in words. begun has the runs of
// each write, by its value.
func checkHistory(history []operation, begun map[string][]run) (anomalies []string) {
	writes := map[string]*operation{} // by value
	byRegister := map[string][]*operation{}
	for i := range history {
		o := &history[i]
		if !o.write {
			continue
		}
		writes[o.value] = o
		runs := begun[o.value]
		switch {
		case o.outcome == answered && len(runs) == 0:
			anomalies = append(anomalies, fmt.Sprintf("write %s was answered and has not run", o.value))
		case o.outcome == answered && o.lastRun(runs).After(o.end):
			anomalies = append(anomalies, fmt.Sprintf("write %s ran again %v after its answer", o.value, o.lastRun(runs).Sub(o.end)))
		case o.outcome == notExecuted && len(runs) > 0:
			anomalies = append(anomalies, fmt.Sprintf("write %s ran, but its error says that it did not: %v", o.value, o.err))
		}
		if o.once && len(runs) > 1 {
			anomalies = append(anomalies, fmt.Sprintf("write %s ran %d times", o.value, len(runs)))
		}
		if o.outcome == answered {
			byRegister[o.register] = append(byRegister[o.register], o)
		}
	}
	latest := map[string][]*operation{} // by register: of byRegister[register][:i+1], the write that began last
	for register, list := range byRegister {
		slices.SortFunc(list, func(a, b *operation) int { return a.end.Compare(b.end) })
		last := slices.Clone(list)
		for i := 1; i < len(last); i++ {
			last[i] = slices.MaxFunc(last[i-1:i+1], func(a, b *operation) int { return a.start.Compare(b.start) })
		}
		latest[register] = last
	}
	for i := range history {
		o := &history[i]
		if o.write || o.outcome != answered {
			continue
		}
		w := writes[o.value]
		list := byRegister[o.register]
		n, _ := slices.BinarySearchFunc(list, o.start, func(w *operation, t time.Time) int { return cmp.Compare(w.end.Sub(t), 0) })
		switch {
		case w == nil && o.value != "":
			anomalies = append(anomalies, fmt.Sprintf("a read of %s returned %q, which was never written", o.register, o.value))
		case n == 0:
		case w == nil:
			anomalies = append(anomalies, fmt.Sprintf("a read of %s returned nothing after a write was answered", o.register))
		case w.outcome == answered && w.end.Before(latest[o.register][n-1].start):
			newer := latest[o.register][n-1]
			anomalies = append(anomalies, fmt.Sprintf("a read of %s returned %s, answered %v before the write of %s began, which was answered %v before the read began",
				o.register, o.value, newer.start.Sub(w.end), newer.value, o.start.Sub(newer.end)))
		case strings.HasPrefix(o.value, "no value"):
			anomalies = append(anomalies, o.value)
		}
	}
	return anomalies
}
