package rabbit

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// Jobs run at once, as many as the limit allows and no more; the others follow
// in their order.
func TestPoolFillsItsLimit(t *testing.T) {
	const limit = 8
	started, release := make(chan *job, 3*limit), make(chan struct{})
	p := newPool(limit, func(j *job) {
		started <- j
		<-release
	}, nil)
	jobs := make([]job, 3*limit)
	p.add(jobs)
	for range limit {
		<-started // would wait forever if one job held up the next
	}
	if len(started) > 0 {
		t.Errorf("more than %d jobs run at once", limit)
	}
	if runs := p.runs(); len(runs) != limit {
		t.Errorf("%d jobs are listed as running, want %d", len(runs), limit)
	}
	for i := limit; i < len(jobs); i++ {
		release <- struct{}{}
		if j := <-started; j != &jobs[i] {
			t.Fatalf("job %d is not the next one to start", i)
		}
	}
	close(release)
	p.stop(true)
	if runs := p.runs(); len(runs) > 0 {
		t.Errorf("%d jobs are listed as running after the end", len(runs))
	}
}

// What waits can be removed; what was removed does not run, and nothing starts
// after stop.
func TestPoolRunsNothingThatWasRemoved(t *testing.T) {
	release := make(chan struct{})
	var mu sync.Mutex
	var ran []*job
	p := newPool(1, func(j *job) {
		<-release
		mu.Lock()
		defer mu.Unlock()
		ran = append(ran, j)
	}, nil)
	jobs := make([]job, 4)
	p.add(jobs[:3])
	if got := p.remove(func(j *job) bool { return j == &jobs[1] }); !slices.Equal(got, []*job{&jobs[1]}) {
		t.Errorf("removed %d jobs, want the second one", len(got))
	}
	release <- struct{}{}
	release <- struct{}{}
	p.stop(true)
	p.add(jobs[3:])
	if want := []*job{&jobs[0], &jobs[2]}; !slices.Equal(ran, want) {
		t.Errorf("%d jobs ran, want the first and the third", len(ran))
	}
}

// A job whose deadline passes while it waits is told, and does not run.
func TestPoolEndsWhatExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		expired := make(chan *job, 1)
		p := newPool(1, func(*job) { <-release }, func(j *job) { expired <- j })
		jobs := []job{{call: &wireCall{}}, {call: &wireCall{deadline: 1}}}
		p.add(jobs)
		if j := <-expired; j != &jobs[1] {
			t.Error("it is not the job that has expired")
		}
		close(release)
		p.stop(true)
	})
}
