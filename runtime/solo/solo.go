// Package solo makes a process quick that has one thing to do at a time.
//
// Most of what a lone request costs is waking. Whenever one goroutine hands
// something to another, Go wakes a thread to run it on a second processor, where
// as a rule it finds that the first one has done so. Whenever a system call
// begins, Go wakes its monitor to look after it. And a system takes longer to
// wake who waits at a socket than a near peer does to answer.
package solo

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// What it takes to be alone.
const (
	inARow = 16                   // pieces of work
	rest   = 5 * time.Millisecond // since there was more to do
)

const (
	// tick is how often a timer ends while the switch is on, at the least. It wakes the
	// runtime's monitor, which nothing else might: without it, work that computes
	// on and on would keep all other from the processor.
	tick = 10 * time.Millisecond

	idle = 10 * time.Second // without work, and the switch is off
)

// Switch is on while the pieces of work of a process come one by one. It is for
// many goroutines at once. Nil is never on.
type Switch struct {
	row     atomic.Int32 // pieces of work in a row that were alone
	on      atomic.Bool
	crowded atomic.Int64 // when the row last ended, in Unix nanoseconds

	awake atomic.Bool  // who reads is not to sleep, see collect
	busy  atomic.Int32 // see Busy
	yield func()       // lets others to the system's processor

	mu    sync.Mutex
	apply func(on bool)
	near  func() bool // a garbage collection is
	ticks *time.Timer // while it is on
	lone  atomic.Bool // there was a piece of work since the last tick
	idle  int         // ticks in a row without one
}

// NewSwitch returns a switch. Whenever it has changed, apply is told, by a
// goroutine of its own, and only of the last change when there were several.
func NewSwitch(apply func(on bool)) *Switch {
	s := &Switch{apply: apply, near: collectionIsNear, yield: yield}
	s.ticks = time.AfterFunc(time.Hour, s.tick)
	s.ticks.Stop()
	return s
}

// OneProcessor returns a switch that keeps the whole process on one processor
// while it is on, by GOMAXPROCS; afterwards the runtime's default holds, whatever
// the environment says. There is to be one at the most.
func OneProcessor() *Switch {
	return NewSwitch(func(on bool) {
		if on {
			runtime.GOMAXPROCS(1)
		} else {
			runtime.SetDefaultGOMAXPROCS()
		}
	})
}

// Alone notes a piece of work that was the only one, and short.
func (s *Switch) Alone() {
	if s == nil {
		return
	}
	if s.on.Load() {
		s.lone.Store(true)
		return
	}
	if s.row.Add(1) >= inARow && time.Now().UnixNano()-s.crowded.Load() >= int64(rest) && s.on.CompareAndSwap(false, true) {
		go s.tell()
	}
}

// Crowded notes that there is, or was, more to do: the switch is off at once.
func (s *Switch) Crowded() {
	if s == nil || s.row.Load() == 0 && !s.on.Load() {
		return
	}
	s.row.Store(0)
	s.crowded.Store(time.Now().UnixNano())
	if s.on.CompareAndSwap(true, false) {
		go s.tell()
	}
}

// Busy notes that n more pieces of work, or fewer, are under way that may wait
// for anything: a store, another service. While there is one, nobody who reads
// from a Conn stays awake: the runtime would not look at what they wait for. It
// returns how many there are.
func (s *Switch) Busy(n int) int {
	if s == nil {
		return 0
	}
	return int(s.busy.Add(int32(n)))
}

// On reports whether the work comes piece by piece.
func (s *Switch) On() bool { return s != nil && s.on.Load() }

// tell is its own goroutine: GOMAXPROCS waits for a garbage collection to end.
func (s *Switch) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	on := s.on.Load()
	s.awake.Store(false)
	s.apply(on)
	if on {
		s.idle = 0
		s.ticks.Reset(tick)
	}
}

// tick is what the timer does besides: it collects garbage, and turns the switch
// off when there is no work any more, and then ends.
func (s *Switch) tick() {
	next := tick
	if s.on.Load() {
		next = s.collect() // without the lock: what is told meanwhile is not to wait for it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.on.Load() {
		s.awake.Store(false)
		return
	}
	s.idle++
	if s.lone.Swap(false) {
		s.idle = 0
	}
	if s.idle < int(idle/tick) {
		s.ticks.Reset(next)
		return
	}
	s.row.Store(0)
	s.awake.Store(false)
	if s.on.CompareAndSwap(true, false) {
		s.apply(false)
	}
}
