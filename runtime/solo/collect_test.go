package solo

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// collections is how many there were.
func collections() uint32 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.NumGC
}

// forced is how often a collection was asked for.
func forced() uint32 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.NumForcedGC
}

// The switch has those stay awake who read, and then collects.
func TestCollect(t *testing.T) {
	near := false
	s := NewSwitch(func(bool) {})
	s.near = func() bool { return near }
	before := forced()
	expect := func(when string, next time.Duration, awake bool, collections uint32) {
		t.Helper()
		if got := s.collect(); got != next || s.awake.Load() != awake || forced()-before != collections {
			t.Fatalf("%s: again after %v, awake %v, %d collections; want %v, %v, %d",
				when, got, s.awake.Load(), forced()-before, next, awake, collections)
		}
	}
	expect("none is near", tick, false, 0)
	near = true
	expect("one is near", notice, true, 0)
	expect("after the notice", tick, false, 1)
	expect("the next one is near", notice, true, 1)
	near = false
	expect("after its notice", tick, false, 2)
}

// Who reads stays awake while a collection is near, unless others may wait for
// anything, or way takes long.
func TestStaysAwake(t *testing.T) {
	s := NewSwitch(func(bool) {})
	quick, long := func() {}, func() { time.Sleep(wayLong) }
	for _, x := range []struct {
		awake bool
		busy  int
		yield func()
		want  bool
	}{{true, 0, quick, true}, {false, 0, quick, false}, {true, 1, quick, false}, {true, 0, long, false}} {
		s.awake.Store(x.awake)
		s.Busy(x.busy)
		s.yield = x.yield
		got := s.staysAwake()
		for range 100 { // the thread may have lost its processor meanwhile
			got = got || x.want && s.staysAwake()
		}
		if got != x.want {
			t.Errorf("near %v, %d busy: stays awake: %v, want %v", x.awake, x.busy, got, x.want)
		}
		s.Busy(-x.busy)
	}
}

// It does so while it is on, and leaves nobody awake when it is off.
func TestSwitchCollects(t *testing.T) {
	before := forced()
	s := NewSwitch(func(bool) {})
	s.near = func() bool { return true }
	for range inARow {
		s.Alone()
	}
	for end := time.Now().Add(10 * time.Second); forced() < before+3; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the switch collects no garbage")
		}
	}
	s.Crowded()
	s.awake.Store(true)
	s.tick()
	before = forced()
	if s.awake.Load() {
		t.Error("those who read are to stay awake, though the switch is off")
	}
	time.Sleep(3 * tick)
	if forced() != before {
		t.Error("it collects garbage though it is off")
	}
}

// The switch comes before the runtime as a rule, unless the heap is large.
func TestCollectionIsNear(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	var garbage []byte
	comesFirst := func() bool {
		runtime.GC()
		if collectionIsNear() {
			t.Fatal("a collection is near though there was one just now")
		}
		for before := collections(); collections() == before; {
			garbage = make([]byte, 64<<10)
			if collectionIsNear() {
				return true
			}
		}
		return false
	}
	first := 0
	for range 20 {
		if comesFirst() {
			first++
		}
	}
	if first < 10 {
		t.Errorf("a collection is near before the runtime has made it %d of 20 times", first)
	}
	large := make([]byte, maxHeap/5)
	if comesFirst() {
		t.Error("the switch would collect a large heap")
	}
	runtime.KeepAlive(large)
	runtime.KeepAlive(garbage)
}
