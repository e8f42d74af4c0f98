package solo

import "time"

const (
	wayLong = 250 * time.Microsecond // what others take at the most that were just woken
	wayCost = 5 * time.Microsecond   // what more may take, on average, for each write
	maxStay = 1000                   // writes in a row that do not make way
)

// way makes way on the system's processor for others, first of all for who waits
// for what was just written: the system often wakes them where the writer runs,
// and leaves them waiting until it sleeps, though another processor is free. On
// the way to sleep that is some microseconds, but while the runtime collects
// garbage it is as long as that takes.
//
// What computes on a processor takes it for milliseconds when way is made. So
// often is none made afterwards that it comes to wayCost, but no more than
// maxStay times.
type way struct {
	stay int // how many of the next ones are left out
}

// make makes way by yield.
func (w *way) make(yield func()) {
	if w.stay > 0 {
		w.stay--
		return
	}
	began := time.Now()
	yield()
	if took := time.Since(began); took > wayLong {
		w.stay = int(min(took/wayCost, maxStay))
	}
}
