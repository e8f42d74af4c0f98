package solo

import (
	"testing"
	"testing/synctest"
	"time"
)

// Way is made each time, as long as others are quick. When they are not, it is
// left out for as long as it takes to make up for that, and then tried again.
func TestWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w way
		for _, x := range []struct {
			takes time.Duration
			after int // times that it is left out before
		}{
			{0, 0}, {wayLong, 0}, {wayLong, 0},
			{wayLong + 1, 0}, {3 * time.Millisecond, 50}, {time.Hour, 600}, {0, 1000}, {0, 0},
		} {
			made := false
			after := -1
			for ; !made && after <= maxStay; after++ {
				w.make(func() {
					made = true
					time.Sleep(x.takes)
				})
			}
			if after != x.after {
				t.Fatalf("others take %v: left out %d times before, want %d", x.takes, after, x.after)
			}
		}
	})
}
