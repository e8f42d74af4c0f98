package contract

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"
)

// Announcement describes a worker. A worker sends it at its start, every
// AnnounceInterval, and on request.
type Announcement struct {
	Worker    string       `json:"worker"` // unique per process
	Host      string       `json:"host"`
	PID       int          `json:"pid"`
	Started   time.Time    `json:"started"`
	Functions []Descriptor `json:"functions"`
	Batch     bool         `json:"batch,omitempty"`   // it accepts several calls in one message
	Leaving   bool         `json:"leaving,omitempty"` // it has stopped
}

// A worker announces itself every AnnounceInterval. One that has not done so for
// AnnounceTimeout is assumed to be dead.
const (
	AnnounceInterval = 2 * time.Second
	AnnounceTimeout  = 7 * time.Second
)

// Live is a function with the workers that host it.
type Live struct {
	Descriptor
	Workers []string `json:"workers"` // ids, sorted; empty if no worker hosts it at present
	Batch   bool     `json:"batch,omitempty"`
}

// Directory keeps the functions that exist and the workers that host them, as
// workers announce them. A function stays in the directory after its last worker
// has stopped, until Forget. The zero Directory is ready to use. It is safe for
// concurrent use.
type Directory struct {
	mu      sync.Mutex
	workers map[string]seen
	known   map[string]Descriptor // by name; from the newest worker that hosts it, or did last
	list    []Live
	changed chan struct{}
}

type seen struct {
	Announcement
	at time.Time
}

func (s *seen) newerThan(o *seen) bool {
	return cmp.Or(s.Started.Compare(o.Started), strings.Compare(s.Worker, o.Worker)) > 0
}

// Update applies an announcement that was received at now.
func (d *Directory) Update(a Announcement, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.workers == nil {
		d.workers, d.known = map[string]seen{}, map[string]Descriptor{}
	}
	if a.Leaving {
		delete(d.workers, a.Worker)
	} else {
		d.workers[a.Worker] = seen{a, now}
	}
	d.rebuild()
}

// Expire removes the workers without an announcement since now - AnnounceTimeout,
// and returns their ids.
func (d *Directory) Expire(now time.Time) (gone []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, w := range d.workers {
		if now.Sub(w.at) > AnnounceTimeout {
			delete(d.workers, id)
			gone = append(gone, id)
		}
	}
	d.rebuild()
	return gone
}

// Forget removes those of the functions that no worker hosts.
func (d *Directory) Forget(functions ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.list {
		if len(f.Workers) == 0 && slices.Contains(functions, f.Name) {
			delete(d.known, f.Name)
		}
	}
	d.rebuild()
}

// Functions lists all functions, sorted by name. The caller must not modify the
// slice, which is shared.
func (d *Directory) Functions() []Live {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.list
}

// Changed returns a channel that is closed when the list of functions changes.
func (d *Directory) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changed == nil {
		d.changed = make(chan struct{})
	}
	return d.changed
}

// Find returns the function with this name, or else the request function that
// answers this routing key. Of several with one key it prefers one that is hosted.
func (d *Directory) Find(nameOrKey string) (Live, bool) {
	list := d.Functions()
	for _, f := range list {
		if f.Name == nameOrKey {
			return f, true
		}
	}
	var found Live
	ok := false
	for _, f := range list {
		if f.Kind == KindRequest && f.Keys[0] == nameOrKey && (!ok || len(found.Workers) == 0) {
			found, ok = f, true
		}
	}
	return found, ok
}

// rebuild recomputes the list and, if it has changed, closes d.changed.
func (d *Directory) rebuild() {
	newest := map[string]seen{}
	for _, w := range d.workers {
		for _, f := range w.Functions {
			if n, ok := newest[f.Name]; !ok || w.newerThan(&n) {
				newest[f.Name], d.known[f.Name] = w, f
			}
		}
	}
	list := make([]Live, 0, len(d.known))
	for _, f := range d.known {
		live := Live{Descriptor: f, Batch: true}
		for id, w := range d.workers {
			if slices.ContainsFunc(w.Functions, func(o Descriptor) bool { return o.Name == f.Name }) {
				live.Workers = append(live.Workers, id)
				live.Batch = live.Batch && w.Batch
			}
		}
		slices.Sort(live.Workers)
		list = append(list, live)
	}
	slices.SortFunc(list, func(a, b Live) int { return strings.Compare(a.Name, b.Name) })
	if slices.EqualFunc(list, d.list, sameLive) {
		return
	}
	d.list = list
	if d.changed != nil {
		close(d.changed)
		d.changed = nil
	}
}

func sameLive(a, b Live) bool {
	return a.Name == b.Name && a.Version == b.Version && a.Batch == b.Batch &&
		slices.Equal(a.Workers, b.Workers) && sameDescriptor(&a.Descriptor, &b.Descriptor)
}

func sameDescriptor(a, b *Descriptor) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
