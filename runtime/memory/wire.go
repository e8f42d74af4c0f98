package memory

import (
	"bufio"
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// preamble is the first thing that both sides send. The number changes when
// frames of before would be misunderstood.
const preamble = "rabbet memory 2\n"

// maxBacklog is how many frames wait for a slow peer before those that may be
// lost (broadcasts, tails) are. The others are few: a peer's own concurrency,
// and answers to what it asked, bound them.
const maxBacklog = 4_096

// kind says what a frame means.
type kind uint8

// From a remote to the broker. ID is chosen by the remote for each of them,
// and the broker's frames about it carry it too.
const (
	publish   kind = iota + 1 // Event; answered
	request                   // Request; answered
	cancel                    // the caller of ID went away
	serve                     // Announcement; answered, then deliver and abort follow
	leave                     // serve ID's intake ends; answered once no deliver can follow
	quit                      // serve ID is over: take back what it still has
	outcome                   // Run, Outcome: what came of a delivery of serve ID; answered by settled
	tail                      // Topic is the pattern; passed follows
	untail                    // the tail of ID is over
	broadcast                 // Topic, Body; answered
	dead                      // Dead; answered with Dead
)

// From the broker to a remote.
const (
	welcome   kind = iota + 64 // the directory has been told: the remote is ready
	announced                  // Announcement
	answered                   // Reply, Dead or Failure
	deliver                    // Delivery: Event, Deadline, Function
	abort                      // Run: its caller went away
	settled                    // Run, Verdict
	passed                     // Event of tail ID
	told                       // Topic, Body
)

// frame is one message between processes, in either direction. What its kind
// does not need is left out on the wire.
type frame struct {
	Kind         kind
	ID           uint64 // of what the remote asked for
	Run          uint64 // of a delivery
	Topic        string
	Body         []byte
	Function     string
	Deadline     time.Time
	Event        *contract.Event
	Request      *contract.Call
	Reply        *contract.Reply
	Failure      *failure
	Announcement *contract.Announcement
	Result       *wireResult
	Verdict      *wireVerdict
	Dead         *wireDead
}

// failure is a *contract.Error on the wire: all of it, with the cause as text.
type failure struct {
	Code     contract.Code
	Detail   string
	Fields   []contract.FieldError
	After    time.Duration
	Executed contract.Executed
	Cause    string
	Stack    []byte
}

type wireResult struct {
	Body     []byte
	Session  []byte
	Failure  *failure
	Run      time.Duration
	Returned bool
}

type wireVerdict struct {
	Outcome contract.Outcome
	After   time.Duration
}

// wireDead asks for dead letters, or is the answer.
type wireDead struct {
	Asks     deadQuestion
	Function string
	Number   uint64
	Fate     contract.DeadLetterAction
	Body     []byte

	Functions []contract.DeadLetterCount
	Numbers   []uint64
	Letter    *contract.DeadLetter
}

type deadQuestion uint8

const (
	deadList    deadQuestion = iota + 1 // the functions that have any
	deadNumbers                         // those of one function
	deadRead                            // one letter
	deadSettle                          // what is to become of it
)

func init() { // what AMQP headers are made of beyond the basic types
	gob.Register(time.Time{})
	gob.Register(map[string]any{})
	gob.Register([]any{})
}

func failureOf(err error) *failure {
	if err == nil {
		return nil
	}
	e := contract.AsError(err)
	f := &failure{Code: e.Code, Detail: e.Detail, Fields: e.Fields, After: e.After, Executed: e.Executed, Stack: e.Stack}
	if e.Cause != nil {
		f.Cause = e.Cause.Error()
	}
	return f
}

func (f *failure) error() error {
	if f == nil {
		return nil
	}
	e := &contract.Error{Code: f.Code, Detail: f.Detail, Fields: f.Fields, After: f.After, Executed: f.Executed, Stack: f.Stack}
	if f.Cause != "" {
		e.Cause = errors.New(f.Cause)
	}
	return e
}

// sendable returns e in a form that can travel: a header of a type that the
// wire does not know goes as its text.
func sendable(e contract.Event) *contract.Event {
	if len(e.Headers) > 0 {
		headers := make(map[string]any, len(e.Headers))
		for name, v := range e.Headers {
			headers[name] = sendableValue(v)
		}
		e.Headers = headers
	}
	return &e
}

func sendableValue(v any) any {
	switch v := v.(type) {
	case string, bool, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64, float32, float64, []byte, time.Time:
		return v
	case map[string]any:
		m := make(map[string]any, len(v))
		for name, item := range v {
			m[name] = sendableValue(item)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			list[i] = sendableValue(item)
		}
		return list
	}
	return fmt.Sprint(v)
}

// peer is one end of a connection. Sending never waits for the other end.
type peer struct {
	conn net.Conn
	wake chan struct{} // holds one

	mu      sync.Mutex
	backlog []*frame
	closed  bool
}

func newPeer(conn net.Conn) *peer { return &peer{conn: conn, wake: make(chan struct{}, 1)} }

// send queues f; it is dropped if the connection is lost.
func (p *peer) send(f *frame) { p.queue(f, false) }

// offer queues f unless the other end is far behind.
func (p *peer) offer(f *frame) { p.queue(f, true) }

func (p *peer) queue(f *frame, losable bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || losable && len(p.backlog) >= maxBacklog {
		return
	}
	p.backlog = append(p.backlog, f)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// close ends read and write.
func (p *peer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed, p.backlog = true, nil
		close(p.wake)
		_ = p.conn.Close() // what is lost by it, the other end sees
	}
}

// write sends what is queued until the peer is closed or the connection lost.
func (p *peer) write() {
	defer p.close()
	buffer := bufio.NewWriterSize(p.conn, 64<<10)
	encoder := gob.NewEncoder(buffer)
	if _, err := buffer.WriteString(preamble); err != nil || buffer.Flush() != nil {
		return
	}
	for range p.wake {
		p.mu.Lock()
		frames := p.backlog
		p.backlog = nil
		p.mu.Unlock()
		for _, f := range frames {
			if encoder.Encode(f) != nil {
				return
			}
		}
		if buffer.Flush() != nil {
			return
		}
	}
}

// read calls handle with every frame until the connection is lost, and says why.
func (p *peer) read(handle func(*frame)) error {
	defer p.close()
	buffer := bufio.NewReaderSize(p.conn, 64<<10)
	hello := make([]byte, len(preamble))
	if _, err := io.ReadFull(buffer, hello); err != nil {
		return err
	}
	if !bytes.Equal(hello, []byte(preamble)) {
		return fmt.Errorf("the other end speaks %q, this one %q: build both from one version", hello, preamble)
	}
	decoder := gob.NewDecoder(buffer)
	for {
		var f frame
		if err := decoder.Decode(&f); err != nil {
			return err
		}
		handle(&f)
	}
}
