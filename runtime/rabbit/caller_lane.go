package rabbit

import (
	"time"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// How calls gather.
const (
	gatherTime     = 300 * time.Microsecond // no call waits longer for others than this
	gatherSpread   = 20                     // ms between the deadlines of calls that travel together
	gatherMaxCalls = 64
	gatherMaxBytes = 256 << 10
	maxIdleLanes   = 1000
)

// laneKey names what calls must have in common to travel together: a message
// is redelivered, or not, as a whole.
type laneKey struct {
	key        string
	repeatable bool
}

// lane is where calls of one kind to one function gather. A call that finds
// no message of its lane under way leaves at once. While one is, calls gather,
// and leave together as soon as the broker has confirmed it, or there are
// enough of them, or gatherTime is over: a message under way holds the next
// ones back, a function that takes its time does not. Guarded by caller.mu.
type lane struct {
	laneKey
	frames   bool // every worker understands frames
	limit    int  // calls in a message; 1 lets none gather
	underway int  // messages not yet confirmed
	calls    []wireCall
	bytes    int
	timer    *time.Timer
}

// message is calls on their way together.
type message struct {
	lane   *lane
	frames bool // it is a frame, even with one call
	calls  []wireCall
}

// add puts the call on its way. c.mu is held.
func (s *callSession) add(key laneKey, call wireCall) {
	l := s.lane(key)
	if l.limit == 1 || l.underway == 0 && len(l.calls) == 0 {
		s.enqueue(&message{l, l.frames, []wireCall{call}})
		return
	}
	size := call.size()
	if len(l.calls) > 0 && (l.bytes+size > gatherMaxBytes || abs(call.deadline-l.calls[0].deadline) > gatherSpread) {
		s.leave(l)
	}
	if len(l.calls) == 0 {
		l.timer.Reset(gatherTime)
	}
	l.calls = append(l.calls, call)
	l.bytes += size
	if len(l.calls) >= l.limit {
		s.leave(l)
	}
}

// leave sends what has gathered in l. c.mu is held.
func (s *callSession) leave(l *lane) {
	if len(l.calls) == 0 {
		return
	}
	l.timer.Stop()
	if l.frames {
		s.enqueue(&message{l, true, l.calls})
	} else { // a worker that does not understand frames came while they gathered
		for i := range l.calls {
			s.enqueue(&message{l, false, l.calls[i : i+1 : i+1]})
		}
	}
	l.calls, l.bytes = nil, 0
}

// confirmed notes that a message of l is no longer under way. c.mu is held.
func (s *callSession) confirmed(l *lane) {
	l.underway--
	s.leave(l)
}

// lane returns the lane of that key. c.mu is held.
func (s *callSession) lane(key laneKey) *lane {
	select {
	case <-s.changed:
		s.changed = s.c.b.Directory().Changed()
		for _, l := range s.lanes {
			l.frames, l.limit = s.c.gatherLimit(l.key)
		}
	default:
	}
	l := s.lanes[key]
	if l == nil {
		s.dropIdleLanes()
		l = &lane{laneKey: key}
		l.frames, l.limit = s.c.gatherLimit(key.key)
		l.timer = time.AfterFunc(time.Hour, func() {
			s.c.mu.Lock()
			defer s.c.mu.Unlock()
			s.leave(l)
		})
		l.timer.Stop()
		s.lanes[key] = l
	}
	return l
}

func (s *callSession) dropIdleLanes() {
	if len(s.lanes) < maxIdleLanes {
		return
	}
	for key, l := range s.lanes {
		if l.underway == 0 && len(l.calls) == 0 {
			delete(s.lanes, key)
		}
	}
}

// gatherLimit reports whether every worker of that key understands frames, and
// how many calls may travel in one: half of what one worker runs at once, so
// that two messages keep it busy and no message waits for long.
func (c *caller) gatherLimit(key string) (frames bool, limit int) {
	if c.b.cfg.NoBatch {
		return false, 1
	}
	for _, f := range c.b.Directory().Functions() {
		if f.Kind == faas.KindRequest && f.Keys[0] == key && f.Batch && len(f.Workers) > 0 {
			return true, max(1, min(gatherMaxCalls, f.Concurrency/2))
		}
	}
	return false, 1
}

func abs(n int64) int64 {
	if n < 0 {
		return -n
	}
	return n
}
