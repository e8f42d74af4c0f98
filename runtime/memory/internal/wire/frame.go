// Package wire is the protocol between a shared broker and the processes that
// use it: what a frame contains, and how frames are sent over a connection. It
// does not know what the two sides do with them.
package wire

import (
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// A Frame is one message, in either direction. Kind says which fields are used.
// Frames are encoded by encoding/gob, which leaves out fields that are zero and
// matches the others by name: a field that is renamed needs a new preamble.
type Frame struct {
	Kind         Kind
	ID           uint64 // identifies a request of the client; frames about it carry the same ID
	Run          uint64 // identifies a delivery
	Topic        string
	Body         []byte
	Function     string
	Deadline     time.Time
	Event        *contract.Event
	Request      *contract.Call
	Reply        *contract.Reply
	Failure      *Failure
	Announcement *contract.Announcement
	Result       *Result
	Verdict      *Decision
	Dead         *DeadLetters
}

// A Kind says what a frame means.
type Kind uint8

// The frames that a client sends.
const (
	Publish           Kind = iota + 1 // Event; reply: Answer
	Call                              // Request; reply: Answer
	CancelCall                        // the caller of the Call with this ID no longer waits
	StartWorker                       // Announcement; reply: Answer, then Deliver and CancelRun
	StopDeliveries                    // to the worker with this ID; reply: Answer, with no Deliver after it
	EndWorker                         // the worker with this ID has ended; its unsettled deliveries go to other workers
	Settle                            // Run, Result; reply: Settled
	StartTail                         // Topic is a pattern; reply: TailEvent for each event
	StopTail                          // the Tail with this ID has ended
	Broadcast                         // Topic, Body; reply: Answer
	DeadLetterRequest                 // Dead; reply: Answer with Dead
)

// The frames that a broker sends.
const (
	Welcome          Kind = iota + 64 // the client has received the complete directory
	Announced                         // Announcement
	Answer                            // Reply, Dead or Failure
	Deliver                           // Run, Event, Function, Deadline
	CancelRun                         // the caller of this Run no longer waits
	Settled                           // Run, Verdict
	TailEvent                         // Event
	BroadcastMessage                  // Topic, Body
)

// A Result is how a run ended.
type Result struct {
	Body     []byte
	Session  []byte
	Failure  *Failure
	Run      time.Duration // how long the function ran
	Returned bool          // it was interrupted: the delivery is returned to its queue
	Decision Decision      // of an event
}

// A Decision is what becomes of an event, or what became of a run.
type Decision struct {
	Outcome contract.Outcome
	After   time.Duration
	Attempt int
	Failure *Failure
}

// DeadLetters is one request for dead letters, or the reply to it.
type DeadLetters struct {
	Asks     Question
	Function string
	Number   uint64
	Fate     contract.DeadLetterAction
	Body     []byte

	Functions []contract.DeadLetterCount
	Numbers   []uint64
	Letter    *contract.DeadLetter
}

// A Question is what a request for dead letters asks.
type Question uint8

// The questions.
const (
	CountLetters  Question = iota + 1 // reply: Functions
	LetterNumbers                     // Function; reply: Numbers
	ReadLetter                        // Function, Number; reply: Letter
	SettleLetter                      // Function, Number, Fate, Body
)
