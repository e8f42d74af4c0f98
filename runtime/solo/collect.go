package solo

import (
	"runtime"
	"runtime/metrics"
	"time"
)

const (
	// notice is how long before a collection they stop sleeping who read.
	notice = 2 * time.Millisecond

	// maxHeap is how large, in bytes, the heap may become before it is collected
	// for the switch to do so. A larger one takes too long for anybody to stay awake.
	maxHeap = 64 << 20
)

// collect collects garbage a little before the runtime would, as who reads from a
// Conn stays awake for it, and returns when it is to be called again.
//
// On one processor a collection is a stretch of one to two milliseconds in which
// the runtime looks at no socket for as long as there is something to sweep, and
// in which the system leaves others waiting for that processor whom it woke on
// it, though another is free. A goroutine that looks again and again, and makes
// way each time, cuts this stretch into pieces of microseconds: the runtime's
// goroutines take turns with it, and others with them. Meanwhile the runtime
// looks at no other socket but when the collection begins and when it has marked.
func (s *Switch) collect() (next time.Duration) {
	switch {
	case s.awake.Load():
		runtime.GC()
		s.awake.Store(false)
	case s.near():
		s.awake.Store(true)
		return notice
	}
	return tick
}

// staysAwake is asked by who reads and finds nothing. It lets others go on, and
// reports whether to look again instead of sleeping. Where something computes on
// the system's processor, way is not made twice.
func (s *Switch) staysAwake() bool {
	if !s.awake.Load() || s.busy.Load() > 0 {
		return false
	}
	runtime.Gosched()
	began := time.Now()
	s.yield()
	return time.Since(began) < wayLong
}

// collectionIsNear reports whether seven eighths are used up of what the heap
// may grow by. The runtime begins to collect at 95 %, and sooner where much is
// allocated meanwhile.
func collectionIsNear() bool {
	samples := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(samples)
	goal, live, used := samples[0].Value.Uint64(), samples[1].Value.Uint64(), samples[2].Value.Uint64()
	return live < goal && goal <= maxHeap && used > live+(goal-live)/8*7
}
