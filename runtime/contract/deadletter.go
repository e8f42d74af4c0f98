package contract

import (
	"context"
	"time"
)

// DeadLetter is an event that a function could not handle, and why.
type DeadLetter struct {
	Function string
	Event    Event  // as it was published; Attempt says how often the function ran, 0 that nobody knows
	Code     Code   // why it was given up; a word of the broker's own when that did it
	Error    string // what the function failed with, as Error.Error says it
	Worker   string // that ran it last; "" when unknown
	First    time.Time
	Last     time.Time // of the failures
	Stack    string    // of a panic

	// Gone is for whoever looks at the letter to set: it is called once the
	// letter has left. One is called at a time, and all before VisitDeadLetters returns.
	Gone func()
}

// DeadLetterAction is what becomes of a dead letter that somebody has looked at.
type DeadLetterAction int

// The fates.
const (
	ActionKeep    DeadLetterAction = iota // it stays where it is
	ActionReplay                          // its function gets it again, from the first attempt on
	ActionReplace                         // it stays, at the end of the queue, with the Event.Body that it was given
	ActionDiscard                         // it is gone for good
	ActionStop                            // it stays, and no other letter is looked at
)

// DeadLetters is what a broker offers to whoever looks after dead letters.
// While one looks at those of a function, nobody else can.
type DeadLetters interface {
	// DeadLetterCounts lists the functions that have dead letters, by name,
	// whether or not they still exist. Those in also are looked at too, should
	// the broker not know of them.
	DeadLetterCounts(ctx context.Context, also ...string) ([]DeadLetterCount, error)

	// VisitDeadLetters calls visit with the dead letters of the function that there
	// are when it begins, the oldest first, and does with each what visit
	// says. A letter leaves only when its copy has been taken: whatever
	// interrupts it, nothing is lost, and at the worst the copies that were
	// under way come twice, each with one id. Of a letter, visit may change
	// Event.Body and Gone. One that it keeps may be shown to it again.
	//
	// It fails with the first error of visit or of a copy, and no letter after
	// that is begun: those under way still leave, or stay; with ErrNotFound if
	// the function never had a queue for dead letters, and with ErrConflict if
	// somebody else looks at them.
	VisitDeadLetters(ctx context.Context, function string, visit func(*DeadLetter) (DeadLetterAction, error)) error
}

// DeadLetterCount is a function with dead letters.
type DeadLetterCount struct {
	Name    string `json:"name"`
	Letters int    `json:"letters"`
}
