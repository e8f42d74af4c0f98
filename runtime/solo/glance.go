package solo

import (
	"syscall"
	"time"
)

// maxSkip is how many glances are left out at the most for one that is in vain.
const maxSkip = 63

// Glance is how somebody who waits at a connection, and has nothing else to do,
// looks for what comes before sleeping: to be woken takes about as long as a
// near peer does to answer. As long costs no more CPU time than the runtime's
// threads use up to look for work meanwhile. The more glances in a row are in
// vain, the more are left out.
//
// It is for one goroutine at a time.
type Glance struct {
	For time.Duration

	skip    int // how many of the next ones are left out
	skipped int // how many were before the last one
}

// Read reads what comes within a moment, and returns how much: 0 leaves all,
// the end and errors too, to a read that waits.
func (g *Glance) Read(socket syscall.RawConn, b []byte) (n int) {
	if g.skip > 0 {
		g.skip--
		return 0
	}
	_ = socket.Control(func(fd uintptr) { // an error shows with the read that waits
		n = readWithin(g.For, fd, b)
	})
	if n > 0 {
		g.skipped = 0
	} else {
		g.skipped = min(2*g.skipped+1, maxSkip)
	}
	g.skip = g.skipped
	return n
}
