package dead

import (
	"fmt"
	"io"
	"time"
)

// A progress shows on a terminal how many letters are done.
type progress struct {
	out   io.Writer // nil shows nothing
	verb  string
	done  int
	total int
	began time.Time
	shown time.Time // when it was last written
}

func (d *console) newProgress(verb string, total int) *progress {
	p := &progress{verb: verb, total: total, began: time.Now()}
	if d.progress {
		p.out = d.notes
	}
	return p
}

// add counts one more. It writes at most ten times a second.
func (p *progress) add() {
	p.done++
	now := time.Now()
	if p.out == nil || now.Sub(p.shown) < 100*time.Millisecond {
		return
	}
	p.shown = now
	fmt.Fprintf(p.out, "\r%s %d of %d (%.0f/s)\x1b[K", p.verb, p.done, p.total, float64(p.done)/now.Sub(p.began).Seconds())
}

// clear removes the line.
func (p *progress) clear() {
	if p.out != nil {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
