package events

import "testing"

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		message interface{ Validate() error }
		ok      bool
	}{
		{EmailRequested{To: "ada@example.com", Subject: "Hello", Text: "you"}, true},
		{EmailRequested{To: "Ada <ada@example.com>", Text: "you"}, true},
		{EmailRequested{Subject: "Hello"}, false},
		{EmailRequested{To: "ada", Subject: "Hello"}, false},
		{EmailRequested{To: "a@example.com, b@example.com", Subject: "Hello"}, false},
		{EmailRequested{To: "ada@example.com", Subject: "Hello\r\nBcc: eve@example.com"}, false},
		{EmailRequested{To: "ada@example.com\n", Subject: "Hello"}, false},
		{EmailRequested{To: "ada@example.com"}, false},
		{ProfileUpdated{ID: "42"}, true},
		{ProfileUpdated{Name: "Ada"}, false},
	} {
		if err := tt.message.Validate(); (err == nil) != tt.ok {
			t.Errorf("%#v: got %v, want ok %v", tt.message, err, tt.ok)
		}
	}
}
