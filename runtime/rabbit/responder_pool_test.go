package rabbit

import (
	"sync"
	"testing"
)

// Jobs that take their time run at once, as many as the limit allows and no more.
func TestPoolFillsItsLimit(t *testing.T) {
	const limit = 8
	started, release := make(chan struct{}, 3*limit), make(chan struct{})
	var p pool
	p.init(limit, func(*job) {
		started <- struct{}{}
		<-release
	}, nil)
	p.add(make([]job, 3*limit))
	for range limit {
		<-started // would wait forever if one job held up the next
	}
	if len(started) > 0 {
		t.Errorf("more than %d jobs run at once", limit)
	}
	close(release)
	for range 2 * limit {
		<-started
	}
	p.stop(true)
}

// Jobs that take no time do not need a runner each.
func TestPoolRunsQuickJobsWithFewRunners(t *testing.T) {
	var ran sync.WaitGroup
	var p pool
	p.init(1000, func(*job) { ran.Done() }, nil)
	for range 100 {
		ran.Add(100)
		p.add(make([]job, 100))
		ran.Wait()
	}
	p.stop(true)
	if n := len(p.runners); n > 100 {
		t.Errorf("%d runners for 100 jobs at once", n)
	}
}

// A job that runs in the goroutine of who brought it counts, and holds up
// others only where the limit says so.
func TestPoolRunsAJobAlone(t *testing.T) {
	for _, limit := range []int{1, 2} {
		started, release := make(chan *job, 3), make(chan struct{})
		var p pool
		p.init(limit, func(j *job) {
			started <- j
			<-release
		}, nil)
		jobs := make([]job, 3)
		if !p.alone(&jobs[0]) {
			t.Errorf("limit %d: it may not run alone", limit)
		}
		go p.runAlone(&jobs[0]) // awaited by stop
		if j := <-started; j != &jobs[0] || len(p.running()) != 1 || p.running()[0] != j {
			t.Errorf("limit %d: it does not run, or is not listed", limit)
		}
		if p.alone(&jobs[1]) {
			t.Errorf("limit %d: a second one may run alone", limit)
		}
		p.add(jobs[1:2])
		if limit == 2 {
			<-started // would wait forever if the lone one held it up
		} else if len(p.runners) > 0 {
			t.Error("limit 1: a second one is about to run")
		}
		p.add(jobs[2:])
		close(release)
		for range 4 - limit - 1 {
			<-started
		}
		p.stop(true)
		if p.alone(&jobs[0]) {
			t.Errorf("limit %d: one may run after the end", limit)
		}
	}
}
