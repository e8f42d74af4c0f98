package rabbit

import (
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// How calls gather.
const (
	gatherShortest = 100 * time.Microsecond  // a call may wait so long for others in any case,
	gatherLongest  = 1500 * time.Microsecond // and never longer than this
	gatherSpread   = 20                      // ms between the deadlines of calls that travel together
	gatherMaxCalls = 64
	gatherMaxBytes = 256 << 10
	maxIdleLanes   = 1000
)

// lane is where calls of one kind to one function gather. A call that finds
// none of them under way leaves at once. Behind it the next ones gather, and
// leave together when the first reply to the message ahead is there, or there
// are enough of them, or the time has passed that a message takes there and
// back, without the function's own: a message under way holds the next one
// back, a function that takes its time does not. Guarded by caller.mu.
type lane struct {
	key    string
	frames bool          // every worker understands frames
	limit  int           // calls in a message; 1 lets none gather
	ahead  *message      // the last one that left, until its first reply; nil: none
	left   time.Time     // when it did
	gather time.Duration // how long a call waits for others at the most
	trip   time.Duration // moving average of the way there and back
	calls  []wire.Call
	bytes  int
	timer  *time.Timer // set while calls gather
}

// message is calls on their way together.
type message struct {
	lane   *lane
	frames bool // it is a frame, even with one call
	calls  []wire.Call
	taken  bool   // a worker has said that it runs the calls, or did
	worker string // that has acknowledged it before the run; "" if none has said so
}

// add takes the call of w in, and returns a message for who called to send; nil
// while calls gather. c.mu is held.
func (s *callSession) add(key string, call wire.Call, w *waiter) *message {
	l := s.lane(key)
	now := time.Now()
	if len(l.calls) == 0 && (l.limit == 1 || l.ahead == nil || now.Sub(l.left) >= l.gather) {
		m := &message{lane: l, frames: l.frames, calls: []wire.Call{call}}
		w.message = m
		l.ahead, l.left = m, now
		return m
	}
	size := call.Size()
	var full *message
	if len(l.calls) > 0 && (l.bytes+size > gatherMaxBytes || abs(call.Deadline-l.calls[0].Deadline) > gatherSpread) {
		full = s.leave(l, now)
	}
	if len(l.calls) == 0 {
		l.timer.Reset(l.gather - now.Sub(l.left))
	}
	l.calls = append(l.calls, call)
	l.bytes += size
	if len(l.calls) >= l.limit && full == nil {
		full = s.leave(l, now)
	}
	return full
}

// leave returns what has gathered in l, without the calls that nobody waits
// for any more, to be sent; nil for nothing. c.mu is held.
func (s *callSession) leave(l *lane, now time.Time) *message {
	l.ahead = nil
	if len(l.calls) == 0 {
		return nil
	}
	m := &message{lane: l, frames: l.frames, calls: l.calls[:0]}
	for i := range l.calls {
		if w := s.c.waiting[l.calls[i].Tag]; w != nil {
			w.message = m
			m.calls = append(m.calls, l.calls[i])
		}
	}
	l.calls, l.bytes = nil, 0
	if len(m.calls) == 0 {
		return nil
	}
	l.timer.Stop()
	l.ahead, l.left = m, now
	return m
}

// replied notes that a reply to m is there, whose function ran for that long.
// It returns what gathered behind m, to be sent; nil for nothing. c.mu is held.
func (s *callSession) replied(m *message, run time.Duration) *message {
	if m == nil || m.lane.ahead != m {
		return nil
	}
	l, now := m.lane, time.Now()
	l.trip += (now.Sub(l.left) - run - l.trip) / 8
	l.gather = min(max(l.trip, gatherShortest), gatherLongest)
	return s.leave(l, now)
}

// lane returns the lane of that key. c.mu is held.
func (s *callSession) lane(key string) *lane {
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
		l = &lane{key: key, gather: gatherShortest}
		l.frames, l.limit = s.c.gatherLimit(key)
		l.timer = time.AfterFunc(time.Hour, func() {
			s.c.mu.Lock()
			m := s.leave(l, time.Now())
			s.c.mu.Unlock()
			s.send(m)
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
		if len(l.calls) == 0 && time.Since(l.left) > gatherLongest {
			delete(s.lanes, key)
		}
	}
}

// gatherLimit reports whether every worker of that key understands frames, and
// how many calls may travel in one: a quarter of what one worker runs at once,
// so that several workers share them evenly and none of them waits for long; one
// if each call is to be acknowledged with its own reply, see responder.
func (c *caller) gatherLimit(key string) (frames bool, limit int) {
	if c.b.cfg.NoBatch {
		return false, 1
	}
	for _, f := range c.b.Directory().Functions() {
		if f.Kind == contract.KindRequest && f.Keys[0] == key && f.Batch && len(f.Workers) > 0 {
			if f.Redeliver && !f.ReadOnly {
				return true, 1
			}
			return true, max(1, min(gatherMaxCalls, f.Concurrency/4))
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
