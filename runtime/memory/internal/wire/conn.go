package wire

import (
	"bufio"
	"bytes"
	"encoding/gob"
	"fmt"
	"io"
	"net"
	"sync"
)

// preamble is the first thing that both sides send. Its number must change when
// an older version would misunderstand the frames.
const preamble = "rabbet memory 2\n"

// maxPending is the number of frames that may be pending before Offer drops
// further ones. The frames of Send are bounded by the concurrency of the other
// side, and by its own requests.
const maxPending = 4_096

// A Conn is one end of a connection. Create it with NewConn, and run Write and
// Read in goroutines of their own. Its methods are safe for concurrent use.
type Conn struct {
	conn net.Conn
	wake chan struct{} // has a buffer of one

	mu      sync.Mutex
	pending []*Frame
	closed  bool
}

// NewConn returns a Conn that owns conn.
func NewConn(conn net.Conn) *Conn { return &Conn{conn: conn, wake: make(chan struct{}, 1)} }

// Send queues f. It never blocks. If the connection is lost, f is dropped.
func (c *Conn) Send(f *Frame) { c.enqueue(f, false) }

// Offer is Send for a frame that may be lost: f is dropped if more than 4,096
// frames are pending.
func (c *Conn) Offer(f *Frame) { c.enqueue(f, true) }

func (c *Conn) enqueue(f *Frame, droppable bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || droppable && len(c.pending) >= maxPending {
		return
	}
	c.pending = append(c.pending, f)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Write sends the preamble and the queued frames, until the connection is closed
// or lost.
func (c *Conn) Write() {
	defer c.Close()
	buffer := bufio.NewWriterSize(c.conn, 64<<10)
	encoder := gob.NewEncoder(buffer)
	if _, err := buffer.WriteString(preamble); err != nil || buffer.Flush() != nil {
		return
	}
	for range c.wake {
		c.mu.Lock()
		frames := c.pending
		c.pending = nil
		c.mu.Unlock()
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

// Read calls handle with every frame that arrives, one at a time, until the
// connection is closed or lost, and returns why. It fails if the other side has
// another preamble.
func (c *Conn) Read(handle func(*Frame)) error {
	defer c.Close()
	buffer := bufio.NewReaderSize(c.conn, 64<<10)
	received := make([]byte, len(preamble))
	if _, err := io.ReadFull(buffer, received); err != nil {
		return err
	}
	if !bytes.Equal(received, []byte(preamble)) {
		return fmt.Errorf("the other end speaks %q, this one %q: build both from one version", received, preamble)
	}
	decoder := gob.NewDecoder(buffer)
	for {
		var f Frame
		if err := decoder.Decode(&f); err != nil {
			return err
		}
		handle(&f)
	}
}

// Close closes the connection and ends Write and Read. Pending frames are
// dropped. It may be called more than once.
func (c *Conn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed, c.pending = true, nil
		close(c.wake)
		_ = c.conn.Close() // the other side notices
	}
}
