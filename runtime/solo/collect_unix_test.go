//go:build unix

package solo

import (
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// Who reads while a collection is near takes turns with what else there is to do
// on the only processor, and waits as ever when the switch is turned.
func TestConnStaysAwake(t *testing.T) {
	before := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	s := NewSwitch(func(bool) {})
	s.on.Store(true)
	s.awake.Store(true)
	s.yield = func() {} // others may well take the processor for longer
	socket, peer := pair(t)
	conn := NewConn(socket, s)
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
	turnsUntilRead := func() int {
		before := came.Load()
		for range 100 { // it has begun to wait
			turn()
		}
		if _, err := peer.Write([]byte("+")); err != nil {
			t.Fatal(err)
		}
		turns := 0
		for ; came.Load() == before; turns++ {
			turn()
		}
		return turns
	}
	middle := func() int { // the thread may have to wait for the system's processor
		var all []int
		for range 21 {
			all = append(all, turnsUntilRead())
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	if turns := middle(); turns > 50 {
		t.Errorf("it learns of a byte after %d turns of another goroutine", turns)
	}
	s.Busy(1)
	turnsUntilRead() // it may still be awake
	if turns := middle(); turns < 200 {
		t.Errorf("while others may wait for anything, it learns of a byte after %d turns: it does not sleep", turns)
	}
	s.Busy(-1)
	s.on.Store(false)
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
}
