package solo

import (
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
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

// It does so while it is on, and leaves nobody awake when it is off.
func TestSwitchCollects(t *testing.T) {
	before := forced()
	s := switchedOn(t)
	s.mu.Lock()
	s.near = func() bool { return true }
	s.mu.Unlock()
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
	if first == 0 {
		t.Error("the runtime collects before the switch would, each of 20 times")
	}
	large := make([]byte, maxHeap/5)
	if comesFirst() {
		t.Error("the switch would collect a large heap")
	}
	runtime.KeepAlive(large)
	runtime.KeepAlive(garbage)
}

// Who reads while a collection is near takes turns with what else there is to do
// on the only processor, and waits as ever when the switch is turned.
func TestConnStaysAwake(t *testing.T) {
	before := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	s := NewSwitch(func(bool) {})
	s.on.Store(true)
	s.awake.Store(true)
	socket, peer := pair(t)
	conn := NewConn(socket, s)
	const stay = 1 << 40
	conn.looks.stay = stay
	var came atomic.Int32
	ended := make(chan error)
	go func() { // ends with its connection
		for {
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				ended <- err
				return
			}
			came.Add(1)
		}
	}()
	turn := func() {
		for began := time.Now(); time.Since(began) < 5*time.Microsecond; {
		}
		runtime.Gosched()
	}
	var all []int
	for i := range int32(21) {
		for range 100 { // it has begun to wait
			turn()
		}
		if _, err := peer.Write([]byte("+")); err != nil {
			t.Fatal(err)
		}
		turns := 0
		for ; came.Load() == i; turns++ {
			turn()
		}
		all = append(all, turns)
	}
	if slices.Sort(all); all[len(all)/2] > 50 { // its thread may have to wait for the system's processor
		t.Errorf("it learns of a byte after so many turns of another goroutine: %v", all)
	}
	s.on.Store(false)
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
	if conn.looks.stay == stay {
		t.Error("no way is made between two looks")
	}
}
