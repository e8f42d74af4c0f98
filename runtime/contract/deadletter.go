package contract

import (
	"context"
	"time"
)

// DeadLetter is an event that a function could not handle, and why.
type DeadLetter struct {
	Function string
	Event    Event     // as it was published; Attempt is the number of runs, 0 if unknown
	Code     Code      // why it became a dead letter; if RabbitMQ dead-lettered it, its reason, such as "delivery_limit"
	Error    string    // text of the last error of the function
	Worker   string    // id of the worker that ran it last; "" if unknown
	First    time.Time // time of the first failure
	Last     time.Time // time of the last failure
	Stack    string    // stack of a panic

	// OnRemoved may be set by a visitor: it is called after the letter has been removed
	// from the dead letters. Calls do not overlap, and all have returned when
	// VisitDeadLetters returns.
	OnRemoved func()
}

// DeadLetterAction says what VisitDeadLetters does with a dead letter.
type DeadLetterAction int

// The actions.
const (
	ActionKeep    DeadLetterAction = iota // keep it
	ActionReplay                          // deliver it to its function again, as the first attempt
	ActionReplace                         // keep it with the Event.Body that the visitor has set, at the end of the queue
	ActionDiscard                         // delete it
	ActionStop                            // keep it and visit no more
)

// DeadLetters gives access to the dead letters of a broker. Only one visitor at a
// time can visit the dead letters of a function.
type DeadLetters interface {
	// DeadLetterCounts lists the functions that have dead letters, sorted by name,
	// whether or not they still exist. It also checks the functions named by also,
	// which the broker may not know.
	DeadLetterCounts(ctx context.Context, also ...string) ([]DeadLetterCount, error)

	// VisitDeadLetters calls visit with each dead letter of the function that
	// exists at the start, oldest first, and does what visit returns. Visit may
	// modify only Event.Body and OnRemoved. A letter that it keeps may be visited
	// again.
	//
	// A letter is removed only after the broker has confirmed its copy. If the
	// visit is interrupted no letter is lost; copies that were in flight may be
	// delivered twice, with the same id.
	//
	// VisitDeadLetters returns the first error of visit or of a copy, and visits no
	// further letters; removals in flight are completed first. It fails with
	// ErrNotFound if the function never had a dead letter queue, and with
	// ErrConflict while another visitor is active.
	VisitDeadLetters(ctx context.Context, function string, visit func(*DeadLetter) (DeadLetterAction, error)) error
}

// DeadLetterCount is the number of dead letters of one function.
type DeadLetterCount struct {
	Name    string `json:"name"`
	Letters int    `json:"letters"`
}
