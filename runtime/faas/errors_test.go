package faas

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func TestErrors(t *testing.T) {
	cause := errors.New("disk")
	var nothing []any // without arguments, the format is the text
	for _, c := range []struct {
		err       error
		code      Code
		text      string
		permanent bool
	}{
		{NotFound("no profile %q", "x"), CodeNotFound, `not-found: no profile "x"`, true},
		{Invalid("100% wrong", nothing...), CodeInvalid, "invalid: 100% wrong", true},
		{InvalidField("/a", "want %d", 2), CodeInvalid, "invalid: the input does not fit; /a: want 2", true},
		{Permanent("write: %w", cause), CodePermanent, "permanent: write: disk", true},
		{Permanent("write it: %v", cause), CodePermanent, "permanent: write it: disk", true},
		{Throttled(time.Second, "slowly"), CodeThrottled, "throttled: slowly", false},
		{RetryAfter(time.Second, cause), contract.CodeUnavailable, "unavailable: try again later: disk", false},
	} {
		e := AsError(fmt.Errorf("wrapped: %w", c.err))
		if e.Code != c.code || e.Error() != c.text || e.Permanent() != c.permanent {
			t.Errorf("got %q of code %s, permanent %v; want %q of code %s, permanent %v", e, e.Code, e.Permanent(), c.text, c.code, c.permanent)
		}
	}
	if err := Permanent("write: %v", cause); !errors.Is(err, cause) {
		t.Errorf("%v hides its cause", err)
	}
	if !errors.Is(fmt.Errorf("x: %w", NotFound("y")), ErrNotFound) || errors.Is(NotFound("y"), ErrConflict) {
		t.Error("sentinels do not compare by code")
	}
	if AsError(nil) != nil {
		t.Error("no error became one")
	}
	if e := AsError(cause); e.Code != contract.CodeInternal || e.Detail == cause.Error() || !errors.Is(e, cause) {
		t.Errorf("an undeclared error: got %+v, want it internal with its text kept from the caller", e)
	}
}
