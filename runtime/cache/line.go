package cache

import (
	"context"
	"slices"
	"sync"

	"go.uber.org/zap"
)

// lineTrips is how many round trips to one server may be under way at once:
// enough for one that is slow not to hold up the rest, few enough for reads to
// gather when there are many. A trip takes lineReads of them at the most.
const (
	lineTrips = 4
	lineReads = 256
)

// line is the way to one server of a store. A read that finds a trip free
// leaves at once. One that does not waits for the next, together with all
// others that came meanwhile: they travel as one, and ask for a key that
// several of them want once.
type line struct {
	guard guard
	fetch func(keys []string, values [][]byte) error // makes a trip; bounds it by itself

	mu      sync.Mutex
	free    int     // trips that may begin
	waiting []*read // for one of them
}

// newLine returns the way to server, which fetch asks.
func newLine(server string, log *zap.Logger, fetch func(keys []string, values [][]byte) error) *line {
	return &line{guard: guard{log: log.With(zap.String("server", server))}, fetch: fetch, free: lineTrips}
}

// read is one caller's part of a trip.
type read struct {
	keys   []string
	values [][]byte
	err    error
	leads  bool          // whoever waits is to make the trip
	ready  chan struct{} // told once: to lead, or that it is over
}

var reads = sync.Pool{New: func() any { return &read{ready: make(chan struct{}, 1)} }}

// get fetches what is stored under keys. It fails with errShut, at once, while
// the server is left alone.
func (l *line) get(ctx context.Context, keys []string, values [][]byte) error {
	l.mu.Lock()
	if l.free > 0 {
		l.free--
		l.mu.Unlock()
		err := l.trip(keys, values)
		l.pass()
		return err
	}
	r := reads.Get().(*read)
	r.keys, r.values, r.err, r.leads = keys, values, nil, false
	l.waiting = append(l.waiting, r)
	l.mu.Unlock()

	select {
	case <-r.ready:
	case <-ctx.Done():
		if l.leave(r) {
			return ctx.Err()
		}
		<-r.ready // it travels already, or must lead
	}
	if r.leads {
		l.lead(r)
	}
	err := r.err
	r.keys, r.values = nil, nil
	reads.Put(r)
	return err
}

// leave takes r out of those who wait, unless its turn has come.
func (l *line) leave(r *read) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.waiting, r)
	if i < 0 || r.leads {
		return false
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	return true
}

// pass hands the trip that has ended on to those who wait.
func (l *line) pass() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.waiting {
		if !r.leads {
			r.leads = true
			r.ready <- struct{}{}
			return
		}
	}
	l.free++
}

// lead makes the trip of r, and of all who wait by now and lead none.
func (l *line) lead(r *read) {
	b := batches.Get().(*batch)
	l.mu.Lock()
	rest := l.waiting[:0]
	for _, o := range l.waiting {
		if o == r || !o.leads && len(b.reads) < lineReads {
			b.add(o)
		} else {
			rest = append(rest, o)
		}
	}
	clear(l.waiting[len(rest):])
	l.waiting = rest
	l.mu.Unlock()

	err := l.trip(b.keys, b.values)
	l.pass()
	for _, o := range b.reads {
		o.err = err
		if err == nil {
			for i, key := range o.keys {
				o.values[i] = b.values[b.index[key]]
			}
		}
		if o != r {
			o.ready <- struct{}{}
		}
	}
	b.reset()
}

func (l *line) trip(keys []string, values [][]byte) error {
	if !l.guard.open() {
		return errShut
	}
	err := l.fetch(keys, values)
	l.guard.tell(err)
	return err
}

// lineUse is do or insist.
type lineUse func(l *line, ctx context.Context, operation func() error) error

// do makes an operation other than a read, for ctx, unless the server is left
// alone.
func (l *line) do(ctx context.Context, operation func() error) error {
	if !l.guard.open() {
		return errShut
	}
	return l.insist(ctx, operation)
}

// insist makes an operation that is worth a wait where a look is not.
func (l *line) insist(ctx context.Context, operation func() error) error {
	err := operation()
	if err == nil || ctx.Err() == nil { // a caller who left says nothing about the server
		l.guard.tell(err)
	}
	return err
}

// batch is what a trip fetches for several.
type batch struct {
	reads  []*read
	keys   []string
	values [][]byte
	index  map[string]int // of a key in keys
}

var batches = sync.Pool{New: func() any { return &batch{index: map[string]int{}} }}

func (b *batch) add(r *read) {
	b.reads = append(b.reads, r)
	for _, key := range r.keys {
		if _, asked := b.index[key]; !asked {
			b.index[key] = len(b.keys)
			b.keys = append(b.keys, key)
			b.values = append(b.values, nil)
		}
	}
}

// reset gives b back, and keeps no value alive.
func (b *batch) reset() {
	clear(b.reads)
	clear(b.keys)
	clear(b.values)
	clear(b.index)
	b.reads, b.keys, b.values = b.reads[:0], b.keys[:0], b.values[:0]
	batches.Put(b)
}

// spread reads keys over the lines that lead to them, all at the same time.
func spread(ctx context.Context, keys []string, values [][]byte, lineOf func(key string) (*line, error)) error {
	type part struct {
		line   *line
		keys   []string
		values [][]byte
		places []int // in values
	}
	var parts []part
	for i, key := range keys {
		l, err := lineOf(key)
		if err != nil {
			return err
		}
		n := slices.IndexFunc(parts, func(p part) bool { return p.line == l })
		if n < 0 {
			n = len(parts)
			parts = append(parts, part{line: l})
		}
		p := &parts[n]
		p.keys, p.values, p.places = append(p.keys, key), append(p.values, nil), append(p.places, i)
	}
	errs := make([]error, len(parts))
	var others sync.WaitGroup
	for n := range parts[1:] {
		others.Go(func() { errs[n+1] = parts[n+1].line.get(ctx, parts[n+1].keys, parts[n+1].values) })
	}
	errs[0] = parts[0].line.get(ctx, parts[0].keys, parts[0].values)
	others.Wait()
	for n, p := range parts {
		if errs[n] != nil {
			return errs[n]
		}
		for i, place := range p.places {
			values[place] = p.values[i]
		}
	}
	return nil
}
