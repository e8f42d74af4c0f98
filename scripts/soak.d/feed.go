package main

import (
	"encoding/binary"
	"io"
	"sync"
)

// outstanding is how many events the publisher may have that are not accepted.
const outstanding = 4096

// feed gives each event to the publisher, and once more to its successor if it
// died before the event was accepted.
type feed struct {
	mu    sync.Mutex
	more  sync.Cond // there is something to give, or an end to it
	next  uint32
	limit func(next uint32) bool // whether next is one too many
	given map[uint32]bool        // and not accepted yet
	again []uint32
	life  int // of the publisher
	done  bool
}

func newFeed(limit func(next uint32) bool) *feed {
	f := &feed{limit: limit, given: map[uint32]bool{}}
	f.more.L = &f.mu
	return f
}

// to gives events to in, the publisher's latest life, in the background.
func (f *feed) to(in io.Writer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.life++
	f.again = f.again[:0]
	for id := range f.given {
		f.again = append(f.again, id)
	}
	life := f.life
	go func() { // ends with that life, or the feed
		for {
			id, ok := f.take(life)
			if !ok {
				return
			}
			if _, err := in.Write(binary.LittleEndian.AppendUint32(nil, id)); err != nil {
				return
			}
		}
	}()
}

func (f *feed) take(life int) (id uint32, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.done || f.life != life:
			return 0, false
		case len(f.again) > 0:
			id, f.again = f.again[0], f.again[1:]
			if f.given[id] {
				return id, true
			}
		case len(f.given) < outstanding && !f.limit(f.next):
			id = f.next
			f.next++
			f.given[id] = true
			return id, true
		default:
			f.more.Wait()
		}
	}
}

func (f *feed) accepted(id uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.given, id)
	f.more.Broadcast()
}

// isEmpty reports whether all is accepted that there will be.
func (f *feed) isEmpty() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.given) == 0 && f.limit(f.next)
}

func (f *feed) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = true
	f.more.Broadcast()
}
