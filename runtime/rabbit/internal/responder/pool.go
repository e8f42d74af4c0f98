package responder

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// sweepInterval is how often waiting jobs are checked for expired deadlines.
const sweepInterval = 10 * time.Millisecond

// job is one call that was accepted.
type job struct {
	d        *delivery
	call     *wire.Call
	run      atomic.Pointer[contract.Run] // set when it has started
	canceled atomic.Bool                  // by its caller, or because its delivery is lost
}

// pool runs jobs in the order in which they were added, at most limit at a time.
type pool struct {
	limit   int
	run     func(*job)
	expired func(*job) // called for a job that expired while it waited

	mu      sync.Mutex
	waiting []*job
	running map[*job]struct{}
	stopped bool
	sweeper *time.Timer
	swept   bool // sweeper is set
	workers sync.WaitGroup
}

func newPool(limit int, run, expired func(*job)) *pool {
	p := &pool{limit: limit, run: run, expired: expired, running: map[*job]struct{}{}}
	p.sweeper = time.AfterFunc(time.Hour, p.sweep)
	p.sweeper.Stop()
	return p
}

// add runs the jobs as soon as the limit allows.
func (p *pool) add(jobs []job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range jobs {
		j := &jobs[i]
		switch {
		case p.stopped:
		case len(p.running) < p.limit:
			p.running[j] = struct{}{}
			p.workers.Go(func() { p.work(j) })
		default:
			p.waiting = append(p.waiting, j)
		}
	}
	if len(p.waiting) > 0 && !p.swept {
		p.swept = true
		p.sweeper.Reset(sweepInterval)
	}
}

// work runs j, and then waiting jobs until there are none.
func (p *pool) work(j *job) {
	for j != nil {
		p.run(j)
		j = p.next(j)
	}
}

// next replaces a job that has ended by a waiting one, or returns nil.
func (p *pool) next(ended *job) *job {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.running, ended)
	if len(p.waiting) == 0 {
		p.waiting = nil // release the memory
		return nil
	}
	j := p.waiting[0]
	p.waiting[0] = nil
	p.waiting = p.waiting[1:]
	p.running[j] = struct{}{}
	return j
}

// runs returns the running jobs.
func (p *pool) runs() []*job {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.running))
}

// sweep removes the jobs that expired while they waited.
func (p *pool) sweep() {
	now := time.Now().UnixMilli()
	for _, j := range p.remove(func(j *job) bool { return j.call.Deadline != 0 && j.call.Deadline <= now }) {
		p.expired(j)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.swept = len(p.waiting) > 0 && !p.stopped; p.swept {
		p.sweeper.Reset(sweepInterval)
	}
}

// remove removes and returns the waiting jobs that match.
func (p *pool) remove(matches func(*job) bool) []*job {
	p.mu.Lock()
	defer p.mu.Unlock()
	var removed []*job
	rest := p.waiting[:0]
	for _, j := range p.waiting {
		if matches(j) {
			removed = append(removed, j)
		} else {
			rest = append(rest, j)
		}
	}
	clear(p.waiting[len(rest):])
	p.waiting = rest
	return removed
}

// stop prevents further jobs from starting. If wait is set, it returns after the
// running jobs have ended.
func (p *pool) stop(wait bool) {
	p.mu.Lock()
	p.stopped, p.waiting = true, nil
	p.sweeper.Stop()
	p.mu.Unlock()
	if wait {
		p.workers.Wait()
	}
}
