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
