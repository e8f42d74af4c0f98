package main

import (
	"fmt"
	"sync"
)

// account keeps the books on every event by its id.
type account struct {
	mu        sync.Mutex
	marks     []mark // by id
	accepted  int    // the broker has confirmed them
	processed int    // a function has
	dead      int    // they are dead letters
	early     int    // processed or dead, and not accepted: its confirmation was not reported yet
	missing   int    // accepted, and neither processed nor dead
	again     int    // processed once more than needed
	deadAgain int
	wrong     int // processed though poison, dead though not
}

type mark uint8

const (
	accepted mark = 1 << iota
	processed
	dead
)

// set sets m on id, and reports whether it was set before.
func (a *account) set(id uint32, m mark) (before mark) {
	for int(id) >= len(a.marks) {
		a.marks = append(a.marks, 0)
	}
	before = a.marks[id]
	a.marks[id] |= m
	return before
}

func (a *account) accept(id uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch before := a.set(id, accepted); {
	case before&accepted != 0:
	case before == 0:
		a.accepted++
		a.missing++
	default:
		a.accepted++
		a.early--
	}
}

func (a *account) process(id uint32) { a.settle(id, processed, &a.processed, &a.again) }
func (a *account) bury(id uint32)    { a.settle(id, dead, &a.dead, &a.deadAgain) }

func (a *account) settle(id uint32, m mark, first, again *int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.set(id, m)
	if poison(id) != (m == dead) {
		a.wrong++
	}
	if before&m != 0 {
		*again++
		return
	}
	*first++
	switch before {
	case 0:
		a.early++
	case accepted:
		a.missing--
	}
}

// state is a snapshot of the sums.
func (a *account) state() (accepted, settled, missing int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.accepted, a.processed + a.dead, a.missing
}

func (a *account) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Sprintf("accepted %d  processed %d  dead %d  duplicate %d", a.accepted, a.processed, a.dead, a.again+a.deadAgain)
}

// balance is the last word.
func (a *account) balance() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	fmt.Printf(`
accepted     %9d   confirmed by RabbitMQ
processed    %9d   by the function, each counted once
dead         %9d   dead letters, each counted once: one event in %d is poison
duplicate    %9d   processed once more than needed, and %d dead letters
lost         %9d
`, a.accepted, a.processed, a.dead, poisonEvery, a.again, a.deadAgain, a.missing)
	if a.missing > 0 {
		return fmt.Errorf("%d accepted events are lost", a.missing)
	}
	if a.wrong > 0 {
		return fmt.Errorf("%d events came to a wrong end", a.wrong)
	}
	return nil
}
