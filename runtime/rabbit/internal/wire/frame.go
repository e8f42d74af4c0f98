package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// A frame carries several calls that are sent to one function at the same moment,
// or several replies to one caller. Its content type is
//
//	application/vnd.rabbet.calls+v1
//	application/vnd.rabbet.replies+v1
//
// It is sent only to processes that announced that they understand frames. A
// message of any other content type is one call, or one reply. README.md of
// runtime/rabbit describes the bytes.
const (
	ContentTypeCalls   = "application/vnd.rabbet.calls+v1"
	ContentTypeReplies = "application/vnd.rabbet.replies+v1"

	frameVersion    = 1
	frameMaxRecords = 4096
)

// ContentTypeTaken is the content type of a message by which a worker tells a
// caller that it is about to run a batch of calls. Its message id is the tag of
// the first call, its app id the worker, its type TypeAcked if the calls are not
// delivered again. It has no correlation id, so that it answers no call.
const ContentTypeTaken = "application/vnd.rabbet.taken+v1"

// TypeAcked is the type of a ContentTypeTaken message about calls that are not
// delivered again.
const TypeAcked = "acked"

// Call is one call, in a message of its own or in a frame.
type Call struct {
	Tag         string
	ID          string
	Deadline    int64 // unix milliseconds; 0 is none
	ContentType string
	Correlation string
	Causation   string
	Trace       contract.Trace
	Session     []byte // nil without one
	Body        []byte
}

// Reply is one reply, in a message of its own or in a frame.
type Reply struct {
	Tag     string
	Run     time.Duration
	Code    contract.Code // "" on success
	Session []byte        // nil if it is not changed
	Body    []byte        // a failure as JSON if Code is set
}

// Size returns about how many bytes c has in a frame.
func (c *Call) Size() int {
	return 40 + len(c.Tag) + len(c.ID) + len(c.ContentType) + len(c.Correlation) + len(c.Causation) +
		len(c.Trace.Parent) + len(c.Trace.State) + len(c.Trace.Baggage) + len(c.Session) + len(c.Body)
}

// Size returns about how many bytes r has in a frame.
func (r *Reply) Size() int { return 24 + len(r.Tag) + len(r.Code) + len(r.Session) + len(r.Body) }

// EncodeCalls returns a frame of 1 to frameMaxRecords calls.
func EncodeCalls(calls []Call) []byte {
	size := 8
	for i := range calls {
		size += calls[i].Size()
	}
	frame := startFrame(size, len(calls))
	head := make([]byte, 0, usualHead)
	for i := range calls {
		c := &calls[i]
		head = appendString(head[:0], c.Tag)
		head = binary.AppendUvarint(head, uint64(max(c.Deadline, 0)))
		head = appendString(head, c.ID)
		head = appendString(head, c.ContentType)
		head = appendString(head, c.Correlation)
		head = appendString(head, c.Causation)
		head = appendString(head, c.Trace.Parent)
		head = appendString(head, c.Trace.State)
		head = appendString(head, c.Trace.Baggage)
		if c.Session != nil {
			head = appendString(head, c.Session)
		}
		frame = appendRecord(frame, head, c.Body)
	}
	return frame
}

// DecodeCalls reads a frame of EncodeCalls. The bodies are parts of frame.
func DecodeCalls(frame []byte) (calls []Call, err error) {
	n, rest, err := openFrame(frame)
	if err != nil {
		return nil, err
	}
	calls = make([]Call, n)
	for i := range calls {
		c := &calls[i]
		var head fields
		if head, c.Body, rest, err = cutRecord(rest); err != nil {
			return nil, fmt.Errorf("call %d of %d: %w", i+1, n, err)
		}
		c.Tag = head.string()
		c.Deadline = int64(min(head.uvarint(), 1<<62))
		c.ID = head.string()
		c.ContentType = head.string()
		c.Correlation = head.string()
		c.Causation = head.string()
		c.Trace.Parent = head.string()
		c.Trace.State = head.string()
		c.Trace.Baggage = head.string()
		c.Session = head.lastBytes()
		if head.short {
			return nil, fmt.Errorf("call %d of %d: %w", i+1, n, errFrameShort)
		}
		if len(c.Tag) > MaxShort {
			return nil, fmt.Errorf("call %d of %d: its tag has %d bytes: AMQP allows %d", i+1, n, len(c.Tag), MaxShort)
		}
	}
	return calls, endFrame(rest)
}

// EncodeReplies returns a frame of 1 to frameMaxRecords replies.
func EncodeReplies(replies []Reply) []byte {
	size := 8
	for i := range replies {
		size += replies[i].Size()
	}
	frame := startFrame(size, len(replies))
	head := make([]byte, 0, usualHead)
	for i := range replies {
		r := &replies[i]
		head = appendString(head[:0], r.Tag)
		head = binary.AppendUvarint(head, uint64(max(r.Run, 0).Microseconds()))
		head = appendString(head, string(r.Code))
		if r.Session != nil {
			head = appendString(head, r.Session)
		}
		frame = appendRecord(frame, head, r.Body)
	}
	return frame
}

// DecodeReplies reads a frame of EncodeReplies. The bodies are parts of frame.
func DecodeReplies(frame []byte) ([]Reply, error) {
	n, rest, err := openFrame(frame)
	if err != nil {
		return nil, err
	}
	replies := make([]Reply, n)
	for i := range replies {
		r := &replies[i]
		var head fields
		if head, r.Body, rest, err = cutRecord(rest); err != nil {
			return nil, fmt.Errorf("reply %d of %d: %w", i+1, n, err)
		}
		r.Tag = head.string()
		r.Run = time.Duration(min(head.uvarint(), uint64(maxRunMicros))) * time.Microsecond
		r.Code = contract.Code(head.string())
		r.Session = head.lastBytes()
		if head.short {
			return nil, fmt.Errorf("reply %d of %d: %w", i+1, n, errFrameShort)
		}
	}
	return replies, endFrame(rest)
}

// maxRunMicros is the longest run time that fits into a Duration.
const maxRunMicros = int64(1<<63-1) / int64(time.Microsecond)

var errFrameShort = errors.New("it ends too early")

// usualHead is the size of a buffer for heads. Most fit into it, and it is
// allocated on the stack.
const usualHead = 256

func startFrame(size, records int) []byte {
	const flags = 0 // none is known
	frame := append(make([]byte, 0, size), frameVersion, flags)
	return binary.AppendUvarint(frame, uint64(records))
}

// openFrame checks the version and the number of records. It limits them by the
// length of the frame, so that a wrong number allocates no memory.
func openFrame(frame []byte) (records int, rest []byte, err error) {
	if len(frame) < 2 {
		return 0, nil, errFrameShort
	}
	if frame[0] != frameVersion {
		return 0, nil, fmt.Errorf("version %d of the frame is not known here: this process knows version %d", frame[0], frameVersion)
	}
	n, width := binary.Uvarint(frame[2:])
	if width <= 0 {
		return 0, nil, errFrameShort
	}
	rest = frame[2+width:]
	const smallest = 2 // a record has at least its two lengths
	if n == 0 || n > frameMaxRecords || n > uint64(len(rest)/smallest) {
		return 0, nil, fmt.Errorf("the frame cannot hold %d records", n)
	}
	return int(n), rest, nil
}

func endFrame(rest []byte) error {
	if len(rest) > 0 {
		return fmt.Errorf("%d bytes follow the last record", len(rest))
	}
	return nil
}

func appendString[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendRecord(frame, head, body []byte) []byte {
	frame = append(binary.AppendUvarint(frame, uint64(len(head))), head...)
	return append(binary.AppendUvarint(frame, uint64(len(body))), body...)
}

// cutRecord returns the first record of b and the rest.
func cutRecord(b []byte) (head fields, body, rest []byte, err error) {
	h, b, ok := cutBytes(b)
	if !ok {
		return fields{}, nil, nil, errFrameShort
	}
	body, rest, ok = cutBytes(b)
	if !ok {
		return fields{}, nil, nil, errFrameShort
	}
	return fields{text: string(h)}, body, rest, nil
}

// cutBytes reads a length and that many bytes from b, and returns the rest.
func cutBytes(b []byte) (cut, rest []byte, ok bool) {
	n, width := binary.Uvarint(b)
	if width <= 0 || n > uint64(len(b)-width) {
		return nil, nil, false
	}
	end := width + int(n)
	return b[width:end:end], b[end:], true
}

// fields reads the fields of a head. It is one string, so that all fields
// together cost one allocation.
type fields struct {
	text  string
	short bool // a field was missing
}

func (f *fields) string() string {
	n := f.uvarint()
	if n > uint64(len(f.text)) {
		f.short, f.text = true, ""
		return ""
	}
	s := f.text[:n]
	f.text = f.text[n:]
	return s
}

// lastBytes returns an optional last field; nil if it is missing.
func (f *fields) lastBytes() []byte {
	if f.text == "" {
		return nil
	}
	return []byte(f.string())
}

func (f *fields) uvarint() uint64 {
	var v uint64
	for i := 0; i < len(f.text) && i < binary.MaxVarintLen64; i++ {
		c := f.text[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			f.text = f.text[i+1:]
			return v
		}
	}
	f.short, f.text = true, ""
	return 0
}
