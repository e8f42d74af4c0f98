package rabbit

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// sweepInterval is how soon a call that waits for its turn is told that its
// deadline has passed.
const sweepInterval = 10 * time.Millisecond

// job is one call that a worker has taken on.
type job struct {
	d        *delivery
	call     *wireCall
	run      atomic.Pointer[contract.Run] // once it has started
	canceled atomic.Bool                  // its caller has gone
}

// pool runs jobs in goroutines that it keeps, never more than its limit at once.
type pool struct {
	limit   int
	run     func(*job)
	expired func(*job) // told of a job whose deadline passed while it waited

	mu      sync.Mutex
	waiting []*job
	busy    int  // jobs that run
	loner   *job // the one among them that runs in the goroutine of who brought it; see alone
	runners []*runner
	idle    []*runner // who waits for work and was not woken yet; the last one's stack is the warmest
	waking  bool      // one that was woken, or is new, has not looked for work yet
	stopped bool
	sweeper *time.Timer
	swept   bool // the sweeper is armed
	ended   sync.WaitGroup
}

// runner is one goroutine of a pool.
type runner struct {
	job  atomic.Pointer[job] // what it runs, or has run last
	work chan struct{}       // holds one: it is to look for work
}

func (p *pool) init(limit int, run, expired func(*job)) {
	p.limit, p.run, p.expired = limit, run, expired
	p.sweeper = time.AfterFunc(time.Hour, p.sweep)
	p.sweeper.Stop()
}

// add runs the jobs as soon as there is room.
func (p *pool) add(jobs []job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range jobs {
		p.waiting = append(p.waiting, &jobs[i])
	}
	p.wake()
}

// alone reserves the place for j to run at once, by runAlone, if no other job
// runs or waits.
func (p *pool) alone(j *job) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy > 0 || len(p.waiting) > 0 || p.stopped {
		return false
	}
	p.busy, p.loner = 1, j
	p.ended.Add(1)
	return true
}

// runAlone runs j, for which alone has reserved the place, in the goroutine of
// the caller: that spares a change of goroutines.
func (p *pool) runAlone(j *job) {
	defer p.ended.Done()
	p.run(j)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy, p.loner = p.busy-1, nil
	p.wake()
}

// wake gets one more runner going if there is work for it. That one wakes the
// next when it takes its job: so a function that waits holds up nobody, while
// one that is done in no time has its jobs run one after the other by a few
// runners, without a change of goroutines for each. p.mu is held.
func (p *pool) wake() {
	switch {
	case len(p.waiting) == 0 || p.waking || p.stopped:
	case p.busy >= p.limit:
		if !p.swept {
			p.swept = true
			p.sweeper.Reset(sweepInterval)
		}
	case len(p.idle) > 0:
		last := len(p.idle) - 1
		r := p.idle[last]
		p.idle = p.idle[:last]
		p.waking = true
		r.work <- struct{}{}
	default:
		r := &runner{work: make(chan struct{}, 1)}
		p.runners = append(p.runners, r)
		p.waking = true
		p.ended.Go(func() { p.runJobs(r) })
	}
}

// runJobs is the goroutine of r, until the pool stops.
func (p *pool) runJobs(r *runner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waking = false
	for !p.stopped {
		if len(p.waiting) == 0 || p.busy >= p.limit {
			r.job.Store(nil) // its bytes are not to be kept
			p.idle = append(p.idle, r)
			p.mu.Unlock()
			<-r.work
			p.mu.Lock()
			p.waking = false
			continue
		}
		j := p.waiting[0]
		p.waiting[0] = nil
		if p.waiting = p.waiting[1:]; len(p.waiting) == 0 {
			p.waiting = nil
		}
		r.job.Store(j)
		p.busy++
		p.wake()
		p.mu.Unlock()
		p.run(j)
		p.mu.Lock()
		p.busy--
	}
}

// running lists the jobs that run, and some that have just ended.
func (p *pool) running() []*job {
	p.mu.Lock()
	defer p.mu.Unlock()
	var jobs []*job
	if p.loner != nil {
		jobs = append(jobs, p.loner)
	}
	for _, r := range p.runners {
		if j := r.job.Load(); j != nil {
			jobs = append(jobs, j)
		}
	}
	return jobs
}

// sweep takes out what expired while it waited, and comes again while
// anything waits.
func (p *pool) sweep() {
	now := time.Now().UnixMilli()
	gone := p.takeBack(func(j *job) bool { return j.call.deadline != 0 && j.call.deadline <= now })
	for _, j := range gone {
		p.expired(j)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.swept = len(p.waiting) > 0 && !p.stopped; p.swept {
		p.sweeper.Reset(sweepInterval)
	}
}

// takeBack takes out the waiting jobs that fit.
func (p *pool) takeBack(fits func(*job) bool) []*job {
	p.mu.Lock()
	defer p.mu.Unlock()
	var taken []*job
	rest := p.waiting[:0]
	for _, j := range p.waiting {
		if fits(j) {
			taken = append(taken, j)
		} else {
			rest = append(rest, j)
		}
	}
	clear(p.waiting[len(rest):])
	p.waiting = rest
	return taken
}

// stop ends the runners; with wait, it waits for those that run. What still
// waits is not started.
func (p *pool) stop(wait bool) {
	p.mu.Lock()
	p.stopped, p.waiting = true, nil
	p.sweeper.Stop()
	for _, r := range p.idle {
		r.work <- struct{}{}
	}
	p.idle = nil
	p.mu.Unlock()
	if wait {
		p.ended.Wait()
	}
}
