package caller

import (
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// Limits of batching.
const (
	minBatchWait      = 100 * time.Microsecond // bounds of batcher.maxWait
	maxBatchWait      = 1500 * time.Microsecond
	maxDeadlineSpread = 20 // milliseconds between the deadlines of calls of one batch
	maxBatchCalls     = 64
	maxBatchers       = 1000 // idle ones are dropped above that
)

// A batcher collects calls to one routing key into batches.
//
// The first call is sent immediately. While that batch is in flight, further
// calls are queued. They are sent as one batch when
//   - the first reply to the previous batch arrives,
//   - the batch is full (maxCalls, wire.FrameMaxBytes), or
//   - maxWait has passed since the previous batch was sent.
//
// maxWait follows the measured round-trip time, without the time the function
// runs, so that a slow function does not delay unrelated calls.
//
// Its fields are guarded by Caller.mu.
type batcher struct {
	session  *session
	key      string
	frames   bool // every worker understands frames
	maxCalls int  // of a batch; 1 turns batching off

	inFlight  *batch    // the last batch sent, until its first reply; nil: none
	sentAt    time.Time // when the last batch was sent
	maxWait   time.Duration
	roundTrip time.Duration // moving average

	queued []wire.Call
	bytes  int         // about the size of queued
	timer  *time.Timer // sends queued after maxWait
}

// batch is calls that are sent together.
type batch struct {
	batcher *batcher
	frames  bool // it is sent as a frame, even with one call
	calls   []wire.Call
	taken   bool   // a worker has begun to run the calls
	worker  string // the worker that acknowledged the batch before it ran the calls; "" if none has said so
}

// enqueue adds call and returns the batch that is now due, or nil. The caller
// must hold Caller.mu, and must send the returned batch after releasing it.
func (b *batcher) enqueue(call wire.Call, p *pendingCall) *batch {
	now := time.Now()
	if len(b.queued) == 0 && (b.maxCalls == 1 || b.inFlight == nil || now.Sub(b.sentAt) >= b.maxWait) {
		p.batch = &batch{batcher: b, frames: b.frames, calls: []wire.Call{call}}
		b.inFlight, b.sentAt = p.batch, now
		return p.batch
	}
	size := call.Size()
	var due *batch
	if len(b.queued) > 0 && (b.bytes+size > wire.FrameMaxBytes || abs(call.Deadline-b.queued[0].Deadline) > maxDeadlineSpread) {
		due = b.flush(now)
	}
	if len(b.queued) == 0 {
		b.timer.Reset(b.maxWait - now.Sub(b.sentAt))
	}
	b.queued = append(b.queued, call)
	b.bytes += size
	if len(b.queued) >= b.maxCalls && due == nil {
		due = b.flush(now)
	}
	return due
}

// flush returns the queued calls as a batch to be sent, without those that were
// abandoned; nil if there are none. The caller must hold Caller.mu.
func (b *batcher) flush(now time.Time) *batch {
	b.inFlight = nil
	if len(b.queued) == 0 {
		return nil
	}
	next := &batch{batcher: b, frames: b.frames, calls: b.queued[:0]}
	for i := range b.queued {
		if p := b.session.caller.pending[b.queued[i].Tag]; p != nil {
			p.batch = next
			next.calls = append(next.calls, b.queued[i])
		}
	}
	b.queued, b.bytes = nil, 0
	if len(next.calls) == 0 {
		return nil
	}
	b.timer.Stop()
	b.inFlight, b.sentAt = next, now
	return next
}

// onReply notes that a reply to the batch arrived, whose function ran for that
// long. It returns the batch that is now due, or nil. The caller must hold
// Caller.mu. A nil batch is ignored.
func (replied *batch) onReply(run time.Duration) *batch {
	if replied == nil || replied.batcher.inFlight != replied {
		return nil
	}
	b, now := replied.batcher, time.Now()
	b.roundTrip += (now.Sub(b.sentAt) - run - b.roundTrip) / 8
	b.maxWait = min(max(b.roundTrip, minBatchWait), maxBatchWait)
	return b.flush(now)
}

// batcherFor returns the batcher of the routing key. The caller must hold
// Caller.mu.
func (s *session) batcherFor(key string) *batcher {
	select {
	case <-s.directoryChanged:
		s.directoryChanged = s.caller.cfg.Directory.Changed()
		for _, b := range s.batchers {
			b.frames, b.maxCalls = s.caller.batchLimit(b.key)
		}
	default:
	}
	b := s.batchers[key]
	if b == nil {
		s.dropIdleBatchers()
		b = &batcher{session: s, key: key, maxWait: minBatchWait}
		b.frames, b.maxCalls = s.caller.batchLimit(key)
		b.timer = time.AfterFunc(time.Hour, func() {
			s.caller.mu.Lock()
			due := b.flush(time.Now())
			s.caller.mu.Unlock()
			s.send(due)
		})
		b.timer.Stop()
		s.batchers[key] = b
	}
	return b
}

func (s *session) dropIdleBatchers() {
	if len(s.batchers) < maxBatchers {
		return
	}
	for key, b := range s.batchers {
		if len(b.queued) == 0 && time.Since(b.sentAt) > maxBatchWait {
			delete(s.batchers, key)
		}
	}
}

// batchLimit reports whether every worker of that key understands frames, and
// how many calls a batch may have: a quarter of what one worker runs at once, so
// that several workers share the calls evenly. It is one if the function needs
// an acknowledgement for each call (see package responder).
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
