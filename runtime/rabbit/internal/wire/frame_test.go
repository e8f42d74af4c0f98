package wire

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

var someCalls = []Call{
	{Tag: "1z", ID: "call-1", Deadline: 1_700_000_000_123, Body: []byte(`{"id":"42"}`)},
	{Tag: "20", Body: []byte{}},
	{
		Tag: "21", ID: strings.Repeat("i", 300), ContentType: "text/plain", Correlation: "first", Causation: "before",
		Trace:   contract.Trace{Parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", State: "a=b", Baggage: "c=d"},
		Session: []byte(`{"user":"ada"}`),
		Body:    bytes.Repeat([]byte("long "), 1000),
	},
}

var someReplies = []Reply{
	{Tag: "1z", Run: 1500 * time.Microsecond, Body: []byte(`{"ok":true}`)},
	{Tag: "20", Code: contract.CodeNotFound, Body: []byte(`{"detail":"no profile"}`)},
	{Tag: "21", Body: []byte{}},
	{Tag: "22", Session: []byte(`{"renew":true}`), Body: []byte(`1`)},
}

func TestFrameKeepsWhatWasPutIn(t *testing.T) {
	calls, err := DecodeCalls(EncodeCalls(someCalls))
	if err != nil || !reflect.DeepEqual(calls, someCalls) {
		t.Errorf("calls: got %+v, %v; want %+v", calls, err, someCalls)
	}
	replies, err := DecodeReplies(EncodeReplies(someReplies))
	if err != nil || !reflect.DeepEqual(replies, someReplies) {
		t.Errorf("replies: got %+v, %v; want %+v", replies, err, someReplies)
	}
}

func TestFrameCutShortOrLengthenedIsRefused(t *testing.T) {
	for name, frame := range map[string][]byte{"calls": EncodeCalls(someCalls), "replies": EncodeReplies(someReplies)} {
		decode := func(b []byte) error {
			if name == "calls" {
				_, err := DecodeCalls(b)
				return err
			}
			_, err := DecodeReplies(b)
			return err
		}
		for n := range frame {
			if decode(frame[:n]) == nil {
				t.Errorf("%s: the first %d of %d bytes were taken for a frame", name, n, len(frame))
			}
		}
		if decode(append(bytes.Clone(frame), 0)) == nil {
			t.Errorf("%s: a byte after the last record was let pass", name)
		}
		frame[0] = 2
		if err := decode(frame); err == nil || !strings.Contains(err.Error(), "version 2") {
			t.Errorf("%s of version 2: got %v, want an error that names the version", name, err)
		}
	}
}

func TestFrameIsReadByLaterAndEarlierVersions(t *testing.T) {
	head := appendString(nil, "tag")
	head = binary.AppendUvarint(head, 7)
	head = appendString(head, "")
	for session, want := range map[string][]byte{"": nil, `{"renew":true}`: []byte(`{"renew":true}`)} {
		head := head // of a writer that knows no sessions, and of one that knows more than we do
		if session != "" {
			head = appendString(head, session)
			head = append(head, "what a later writer added"...)
		}
		frame := startFrame(0, 1)
		frame[1] = 0x80 // a flag that we do not know
		replies, err := DecodeReplies(appendRecord(frame, head, []byte("body")))
		want := []Reply{{Tag: "tag", Run: 7 * time.Microsecond, Session: want, Body: []byte("body")}}
		if err != nil || !reflect.DeepEqual(replies, want) {
			t.Errorf("got %+v, %v; want %+v", replies, err, want)
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(EncodeCalls(someCalls))
	f.Add(EncodeReplies(someReplies))
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0})
	f.Add([]byte{1, 1, 1, 0, 0})
	f.Add([]byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0, 0})
	f.Add(append([]byte{1, 0, 1}, bytes.Repeat([]byte{0xff}, 20)...))
	f.Add([]byte{1, 0, 1, 11, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0})
	f.Fuzz(func(t *testing.T, frame []byte) {
		if calls, err := DecodeCalls(frame); err == nil {
			again, err := DecodeCalls(EncodeCalls(calls))
			if err != nil || !reflect.DeepEqual(again, calls) {
				t.Errorf("calls: got %+v, %v; want %+v", again, err, calls)
			}
		}
		if replies, err := DecodeReplies(frame); err == nil {
			again, err := DecodeReplies(EncodeReplies(replies))
			if err != nil || !reflect.DeepEqual(again, replies) {
				t.Errorf("replies: got %+v, %v; want %+v", again, err, replies)
			}
		}
	})
}

func TestFailureKeepsWhatTheCallerMayKnow(t *testing.T) {
	e := &contract.Error{
		Code: contract.CodeInvalid, Detail: "the input does not fit", Fields: []contract.FieldError{{Pointer: "/email", Detail: "no @"}},
		After: 1500 * time.Millisecond, Executed: contract.ExecutedNo, Cause: errFrameShort, Stack: []byte("secret"),
	}
	got := DecodeFailure(e.Code, EncodeFailure(e))
	want := &contract.Error{Code: e.Code, Detail: e.Detail, Fields: e.Fields, After: e.After, Executed: e.Executed}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := DecodeFailure(contract.Code(strings.Repeat("x", 65)), []byte("rubbish")); got.Code != contract.CodeInternal || got.Detail == "" {
		t.Errorf("rubbish: got %+v, want code internal with some detail", got)
	}
}
