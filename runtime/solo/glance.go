package solo

import (
	"cmp"
	"time"
)

const (
	moment  = 100 * time.Microsecond
	maxSkip = 63 // glances are left out at the most for one that is in vain
)

// Glance is how somebody who waits at a connection, and has nothing else to do,
// looks for what comes before sleeping: to be woken takes about as long as a
// near peer does to answer. As long costs no more CPU time than the runtime's
// threads use up to look for work meanwhile. The more glances in a row are in
// vain, the more are left out.
//
// It is for one goroutine at a time.
type Glance struct {
	lasts time.Duration // a moment, if zero

	skip    int // how many of the next ones are left out
	skipped int // how many were before the last one
}

// Read reads what comes over c within 100 µs. Nothing, and no error, leaves all,
// the end too, to a read that waits; where there is no socket there is nothing to
// see.
func (g *Glance) Read(c *Conn, b []byte) (n int, err error) {
	if c.raw == nil {
		return 0, nil
	}
	if g.skip > 0 {
		g.skip--
		return 0, nil
	}
	_ = c.raw.Control(func(fd uintptr) { // fails with the read that waits
		n, err = readWithin(cmp.Or(g.lasts, moment), fd, b, c.on)
	})
	if n > 0 {
		g.skipped = 0
	} else {
		g.skipped = min(2*g.skipped+1, maxSkip)
	}
	g.skip = g.skipped
	return n, c.readError(err)
}
