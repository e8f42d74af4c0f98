package caller

import (
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// How calls gather.
const (
	minBatchWait      = 100 * time.Microsecond  // a call may wait so long for others in any case,
	maxBatchWait      = 1500 * time.Microsecond // and never longer than this
	maxDeadlineSpread = 20                      // ms between the deadlines of calls that travel together
	maxBatchCalls     = 64
	maxBatchers       = 1000
)

// batcher is where calls of one kind to one function gather. A call that finds
// none of them under way leaves at once. Behind it the next ones gather, and
// leave together when the first reply to the message ahead is there, or there
// are enough of them, or the time has passed that a message takes there and
// back, without the function's own: a message under way holds the next one
// back, a function that takes its time does not. Guarded by caller.mu.
type batcher struct {
	key       string
	frames    bool          // every worker understands frames
	limit     int           // calls in a message; 1 lets none gather
	inFlight  *batch        // the last one that left, until its first reply; nil: none
	sentAt    time.Time     // when it did
	maxWait   time.Duration // how long a call waits for others at the most
	roundTrip time.Duration // moving average of the way there and back
	calls     []wire.Call
	bytes     int
	timer     *time.Timer // set while calls gather
}

// batch is calls on their way together.
type batch struct {
	batcher *batcher
	frames  bool // it is a frame, even with one call
	calls   []wire.Call
	taken   bool   // a worker has said that it runs the calls, or did
	worker  string // that has acknowledged it before the run; "" if none has said so
}

// enqueue takes the call of w in, and returns a message for who called to send; nil
// while calls gather. c.mu is held.
func (s *session) enqueue(key string, call wire.Call, w *pendingCall) *batch {
	l := s.batcherFor(key)
	now := time.Now()
	if len(l.calls) == 0 && (l.limit == 1 || l.inFlight == nil || now.Sub(l.sentAt) >= l.maxWait) {
		m := &batch{batcher: l, frames: l.frames, calls: []wire.Call{call}}
		w.batch = m
		l.inFlight, l.sentAt = m, now
		return m
	}
	size := call.Size()
	var full *batch
	if len(l.calls) > 0 && (l.bytes+size > wire.FrameMaxBytes || abs(call.Deadline-l.calls[0].Deadline) > maxDeadlineSpread) {
		full = s.flush(l, now)
	}
	if len(l.calls) == 0 {
		l.timer.Reset(l.maxWait - now.Sub(l.sentAt))
	}
	l.calls = append(l.calls, call)
	l.bytes += size
	if len(l.calls) >= l.limit && full == nil {
		full = s.flush(l, now)
	}
	return full
}

// flush returns what has gathered in l, without the calls that nobody waits
// for any more, to be sent; nil for nothing. c.mu is held.
func (s *session) flush(l *batcher, now time.Time) *batch {
	l.inFlight = nil
	if len(l.calls) == 0 {
		return nil
	}
	m := &batch{batcher: l, frames: l.frames, calls: l.calls[:0]}
	for i := range l.calls {
		if w := s.c.pending[l.calls[i].Tag]; w != nil {
			w.batch = m
			m.calls = append(m.calls, l.calls[i])
		}
	}
	l.calls, l.bytes = nil, 0
	if len(m.calls) == 0 {
		return nil
	}
	l.timer.Stop()
	l.inFlight, l.sentAt = m, now
	return m
}

// onReply notes that a reply to m is there, whose function ran for that long.
// It returns what gathered behind m, to be sent; nil for nothing. c.mu is held.
func (s *session) onReply(m *batch, run time.Duration) *batch {
	if m == nil || m.batcher.inFlight != m {
		return nil
	}
	l, now := m.batcher, time.Now()
	l.roundTrip += (now.Sub(l.sentAt) - run - l.roundTrip) / 8
	l.maxWait = min(max(l.roundTrip, minBatchWait), maxBatchWait)
	return s.flush(l, now)
}

// batcherFor returns the lane of that key. c.mu is held.
func (s *session) batcherFor(key string) *batcher {
	select {
	case <-s.changed:
		s.changed = s.c.cfg.Directory.Changed()
		for _, l := range s.batchers {
			l.frames, l.limit = s.c.batchLimit(l.key)
		}
	default:
	}
	l := s.batchers[key]
	if l == nil {
		s.dropIdleBatchers()
		l = &batcher{key: key, maxWait: minBatchWait}
		l.frames, l.limit = s.c.batchLimit(key)
		l.timer = time.AfterFunc(time.Hour, func() {
			s.c.mu.Lock()
			m := s.flush(l, time.Now())
			s.c.mu.Unlock()
			s.send(m)
		})
		l.timer.Stop()
		s.batchers[key] = l
	}
	return l
}

func (s *session) dropIdleBatchers() {
	if len(s.batchers) < maxBatchers {
		return
	}
	for key, l := range s.batchers {
		if len(l.calls) == 0 && time.Since(l.sentAt) > maxBatchWait {
			delete(s.batchers, key)
		}
	}
}

// batchLimit reports whether every worker of that key understands frames, and
// how many calls may travel in one: a quarter of what one worker runs at once,
// so that several workers share them evenly and none of them waits for long; one
// if each call is to be acknowledged with its own reply, see responder.
func (c *Caller) batchLimit(key string) (frames bool, limit int) {
	if c.cfg.NoBatch {
		return false, 1
	}
	for _, f := range c.cfg.Directory.Functions() {
		if f.Kind == contract.KindRequest && f.Keys[0] == key && f.Batch && len(f.Workers) > 0 {
			if f.Redeliver && !f.ReadOnly {
				return true, 1
			}
			return true, max(1, min(maxBatchCalls, f.Concurrency/4))
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
