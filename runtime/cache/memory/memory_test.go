package memory

import (
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/cache/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) {
	storetest.Run(t, storetest.Harness{Open: func(t *testing.T) store.Store {
		s, err := Open("memory://", store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}})
}

func TestMemoryIsBounded(t *testing.T) {
	offer(t, 30_000)
}

// BenchmarkMemoryIsBounded offers ten million keys. It takes half a minute.
func BenchmarkMemoryIsBounded(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(float64(offer(b, 10_000_000))/(1<<20), "MiB")
	}
}

// offer sets n distinct keys of a store that is bounded at 4 MiB, and returns
// how much of the heap it took at the most.
func offer(t testing.TB, n int) (peak uint64) {
	s, err := Open("memory://?size=4", store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m := s.(*memory)
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := heap()
	value := strings.Repeat("x", 100)
	for i := range n {
		if err := m.Set(t.Context(), "n:t:"+strconv.Itoa(i), []byte(value), time.Hour); err != nil {
			t.Fatal(err)
		}
		if i%(n/20) == n/20-1 {
			peak = max(peak, heap()-before)
		}
	}
	if peak > 6<<20 {
		t.Errorf("%d MiB of heap for %d keys offered, want at most the limit of 4 MiB and a little", peak>>20, n)
	}
	m.items.CleanUp()
	if kept := m.items.EstimatedSize(); kept < 8_000 || m.items.WeightedSize() > 4<<20 {
		t.Errorf("%d keys of %d bytes kept", kept, m.items.WeightedSize())
	}
	if err := m.Set(t.Context(), "giant", make([]byte, 5<<20), time.Hour); err != nil {
		t.Errorf("an item above the limit: %v", err)
	}
	if m.items.CleanUp(); m.items.WeightedSize() > 4<<20 {
		t.Errorf("%d bytes after an item above the limit", m.items.WeightedSize())
	}
	return peak
}
