package server

import "sync"

// read is a pending read of one caller.
type read struct {
	keys   []string
	values [][]byte
	err    error
	leader bool          // its caller sends the next batch
	wake   chan struct{} // receives once: the read is done, or its caller is a leader
}

var reads = sync.Pool{New: func() any { return &read{wake: make(chan struct{}, 1)} }}

// batch is several reads in one round trip. Each key is in it once.
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
		if _, ok := b.index[key]; !ok {
			b.index[key] = len(b.keys)
			b.keys = append(b.keys, key)
			b.values = append(b.values, nil)
		}
	}
}

// deliver gives each read its values, and wakes the callers other than leader.
func (b *batch) deliver(err error, leader *read) {
	for _, r := range b.reads {
		r.err = err
		if err == nil {
			for i, key := range r.keys {
				r.values[i] = b.values[b.index[key]]
			}
		}
		if r != leader {
			r.wake <- struct{}{}
		}
	}
}

// release returns b to the pool. It keeps no value alive.
func (b *batch) release() {
	clear(b.reads)
	clear(b.keys)
	clear(b.values)
	clear(b.index)
	b.reads, b.keys, b.values = b.reads[:0], b.keys[:0], b.values[:0]
	batches.Put(b)
}
