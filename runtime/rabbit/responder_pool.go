package rabbit

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// sweepInterval is how soon a call that waits for its turn is told that its
// deadline has passed.
const sweepInterval = 10 * time.Millisecond

// job is one call that a worker has taken on.
type job struct {
	d        *delivery
	call     wireCall
	run      atomic.Pointer[faas.Run] // once it has started
	canceled atomic.Bool              // its caller has gone
}

// pool runs jobs in goroutines that it keeps, never more than its limit at once.
type pool struct {
	limit   int
	run     func(*job)
	expired func(*job) // told of a job whose deadline passed while it waited

	mu      sync.Mutex
	work    sync.Cond
	waiting []*job
	current []*atomic.Pointer[job] // what each runner runs, or has run last
	idle    int                    // runners that wait for work and were not yet woken
	stopped bool
	sweeper *time.Timer
	swept   bool // the sweeper is armed
	ended   sync.WaitGroup
}

func (p *pool) init(limit int, run, expired func(*job)) {
	p.limit, p.run, p.expired = limit, run, expired
	p.work.L = &p.mu
	p.sweeper = time.AfterFunc(time.Hour, p.sweep)
	p.sweeper.Stop()
}

// add runs the jobs as soon as there is room.
func (p *pool) add(jobs []job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range jobs {
		p.waiting = append(p.waiting, &jobs[i])
		switch {
		case p.idle > 0:
			p.idle--
			p.work.Signal()
		case len(p.current) < p.limit:
			current := &atomic.Pointer[job]{}
			p.current = append(p.current, current)
			p.ended.Go(func() { p.runner(current) })
		case !p.swept:
			p.swept = true
			p.sweeper.Reset(sweepInterval)
		}
	}
}

// runner runs jobs until the pool stops.
func (p *pool) runner(current *atomic.Pointer[job]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for len(p.waiting) == 0 {
			if p.stopped {
				return
			}
			p.idle++
			current.Store(nil) // its bytes are not to be kept
			p.work.Wait()
		}
		j := p.waiting[0]
		p.waiting[0] = nil
		if p.waiting = p.waiting[1:]; len(p.waiting) == 0 {
			p.waiting = nil
		}
		current.Store(j)
		p.mu.Unlock()
		p.run(j)
		p.mu.Lock()
	}
}

// running lists the jobs that run, and some that have just ended.
func (p *pool) running() []*job {
	p.mu.Lock()
	defer p.mu.Unlock()
	var jobs []*job
	for _, current := range p.current {
		if j := current.Load(); j != nil {
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
	p.work.Broadcast()
	p.mu.Unlock()
	if wait {
		p.ended.Wait()
	}
}
