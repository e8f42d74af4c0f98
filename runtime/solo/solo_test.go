package solo

import (
	"runtime"
	"testing"
	"time"
)

func TestSwitch(t *testing.T) {
	told := make(chan bool, 10)
	s := NewSwitch(func(on bool) { told <- on })
	alone := func(n int) {
		for range n {
			s.Alone()
		}
	}
	expect := func(when string, on bool) {
		t.Helper()
		if s.On() != on {
			t.Errorf("%s: on: %v, want %v", when, s.On(), on)
		}
	}
	expectTold := func(on bool) {
		t.Helper()
		select {
		case got := <-told:
			if got != on {
				t.Errorf("told: on: %v, want %v", got, on)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("not told: on: %v", on)
		}
	}
	alone(inARow - 1)
	expect("not yet enough", false)
	began := time.Now().UnixNano()
	s.Crowded()
	if noted := s.crowded.Load(); noted < began {
		t.Errorf("crowded is noted as of %d, want %d or later", noted, began)
	}
	s.crowded.Store(time.Now().Add(-rest).UnixNano())
	alone(inARow - 1)
	expect("they count from the beginning", false)
	alone(1)
	expect("enough in a row", true)
	expectTold(true)
	alone(10)
	s.Crowded()
	expect("crowded", false)
	expectTold(false)
	s.crowded.Store(time.Now().Add(time.Hour - rest).UnixNano())
	alone(2 * inARow)
	expect("too soon", false)
	s.crowded.Store(time.Now().Add(-rest).UnixNano())
	alone(1)
	expect("later", true)
	expectTold(true)
	s.row.Store(0) // what an Alone and a Crowded at the same time may leave behind
	s.Crowded()
	expect("crowded again", false)
	expectTold(false)
	if len(told) > 0 {
		t.Errorf("told once more: on: %v", <-told)
	}

	var none *Switch
	none.Alone()
	none.Crowded()
	if none.On() {
		t.Error("no switch is on")
	}
}

func TestOneProcessor(t *testing.T) {
	before := runtime.GOMAXPROCS(2) // on a machine with one processor, too
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	s := OneProcessor()
	expect := func(n int) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); runtime.GOMAXPROCS(0) != n; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("GOMAXPROCS is %d, want %d", runtime.GOMAXPROCS(0), n)
			}
		}
	}
	for range inARow {
		s.Alone()
	}
	expect(1)
	s.Crowded()
	expect(runtime.NumCPU())
}

// Without work for a while the switch is off.
func TestSwitchIsOffWithoutWork(t *testing.T) {
	s := switchedOn(t)
	told := make(chan bool, 1)
	s.mu.Lock()
	s.apply = func(on bool) { told <- on }
	s.mu.Unlock()
	ticks := func(n int) {
		for range n {
			s.tick()
		}
	}
	ticks(int(idle/tick) / 2)
	s.Alone()
	ticks(int(idle/tick) / 2)
	if !s.On() {
		t.Error("the switch is off while there is work")
	}
	ticks(int(idle / tick))
	if s.On() || <-told {
		t.Error("the switch is on without work")
	}
	for range inARow - 1 {
		s.Alone()
	}
	if s.On() {
		t.Error("it is on again too soon")
	}
}

// switchedOn returns a switch that is on, and stays so until t is over.
func switchedOn(t *testing.T) *Switch {
	t.Helper()
	told := make(chan bool, 1)
	s := NewSwitch(func(on bool) { told <- on })
	t.Cleanup(s.Crowded)
	for range inARow {
		s.Alone()
	}
	if on := <-told; !on {
		t.Fatal("the switch is not on")
	}
	return s
}
