package wire

import (
	"errors"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func TestFailureKeepsEveryField(t *testing.T) {
	sent := &contract.Error{
		Code: contract.CodeInvalid, Detail: "it does not fit", Fields: []contract.FieldError{{Pointer: "/a", Detail: "b"}},
		After: time.Second, Executed: contract.ExecutedUnknown, Cause: errors.New("inside"), Stack: []byte("stack"),
	}
	got, ok := errors.AsType[*contract.Error](NewFailure(sent).Err())
	if !ok || got.Error() != sent.Error() || got.After != sent.After || got.Executed != sent.Executed || string(got.Stack) != "stack" {
		t.Errorf("got %+v, want %+v", got, sent)
	}
	if err := NewFailure(nil).Err(); err != nil {
		t.Errorf("no error: got %v", err)
	}
}
