package contract

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	plain := errors.New("no")
	policy := Retry{Max: 3, First: time.Second, Factor: 2, Cap: time.Minute, Jitter: 1e-9}
	for _, c := range []struct {
		name    string
		policy  Retry
		err     error
		attempt int
		outcome Outcome
		after   time.Duration
		code    Code
	}{
		{"success", policy, nil, 1, OutcomeDone, 0, ""},
		{"first failure", policy, plain, 1, OutcomeRetry, time.Second, CodeInternal},
		{"second failure", policy, plain, 2, OutcomeRetry, 2 * time.Second, CodeInternal},
		{"last failure", policy, plain, 3, OutcomeDead, 0, CodeExhausted},
		{"beyond the last", policy, plain, 4, OutcomeDead, 0, CodeExhausted},
		{"no second attempt", Retry{Max: 1}, plain, 1, OutcomeDead, 0, CodeExhausted},
		{"permanent", policy, Errorf(CodePermanent, "no"), 1, OutcomeDead, 0, CodePermanent},
		{"not found, wrapped", policy, fmt.Errorf("look: %w", Errorf(CodeNotFound, "no")), 1, OutcomeDead, 0, CodeNotFound},
		{"malformed", policy, &Error{Code: CodeMalformed}, 1, OutcomeDead, 0, CodeMalformed},
		{"later than the policy", policy, &Error{Code: CodeUnavailable, After: time.Hour, Executed: ExecutedYes}, 1, OutcomeRetry, time.Hour, CodeUnavailable},
		{"sooner than the policy", policy, &Error{Code: CodeUnavailable, After: time.Millisecond, Executed: ExecutedYes}, 1, OutcomeRetry, time.Second, CodeUnavailable},
		{"throttled", policy, &Error{Code: CodeThrottled, After: time.Hour}, 1, OutcomeRetry, time.Hour, CodeThrottled},
		{"panic", policy, &Error{Code: CodePanic}, 1, OutcomeRetry, time.Second, CodePanic},
		{"postponed", policy, AsError(Postpone(time.Hour, plain)), 3, OutcomeRetry, time.Hour, CodeUnavailable},
		{"capped", Retry{Max: 1000, First: time.Second, Cap: time.Minute}, plain, 900, OutcomeRetry, time.Minute, CodeInternal},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := c.policy.Decide(c.err, c.attempt)
			if v.Outcome != c.outcome || v.After.Round(time.Millisecond) != c.after {
				t.Errorf("got %s after %v, want %s after %v", v.Outcome, v.After, c.outcome, c.after)
			}
			if next := c.attempt + 1; c.outcome == OutcomeRetry && c.name != "postponed" && v.Attempt != next {
				t.Errorf("the next attempt is %d, want %d", v.Attempt, next)
			}
			if c.name == "postponed" && v.Attempt != c.attempt {
				t.Errorf("the next attempt is %d, want %d: it has not run", v.Attempt, c.attempt)
			}
			if c.code == "" {
				if v.Err != nil {
					t.Errorf("got the error %v, want none", v.Err)
				}
			} else if v.Err == nil || v.Err.Code != c.code {
				t.Errorf("got the error %v, want the code %s", v.Err, c.code)
			}
			if c.outcome == OutcomeDead && c.code == CodeExhausted && !errors.Is(v.Err, plain) {
				t.Errorf("%v hides its cause", v.Err)
			}
		})
	}
}

func TestJudgeJitters(t *testing.T) {
	policy := Retry{Max: 5, First: time.Second, Jitter: 0.5}
	seen := map[time.Duration]bool{}
	for range 100 {
		after := policy.Decide(errors.New("no"), 1).After
		if after < 500*time.Millisecond || after > 1500*time.Millisecond {
			t.Fatalf("got %v, want 0.5 s to 1.5 s", after)
		}
		seen[after] = true
	}
	if len(seen) < 2 {
		t.Error("every wait is the same")
	}
}

func TestDecideByNext(t *testing.T) {
	busy := errors.New("busy")
	policy := Retry{Max: 5, Next: func(attempt int, err error) (time.Duration, bool) {
		switch {
		case errors.Is(err, busy):
			return time.Duration(attempt) * time.Minute, true
		case attempt == 4:
			panic("why")
		}
		return -time.Second, attempt < 3
	}}
	for _, c := range []struct {
		name    string
		err     error
		attempt int
		want    Outcome
		after   time.Duration
		code    Code
	}{
		{"its own wait", fmt.Errorf("wrapped: %w", busy), 2, OutcomeRetry, 2 * time.Minute, CodeInternal},
		{"the error asks for more", &Error{Code: CodeUnavailable, After: time.Hour, Cause: busy}, 2, OutcomeRetry, time.Hour, CodeUnavailable},
		{"a negative wait", errors.New("other"), 1, OutcomeRetry, 0, CodeInternal},
		{"it gives up", errors.New("other"), 3, OutcomeDead, 0, CodeExhausted},
		{"all attempts used up", busy, 5, OutcomeDead, 0, CodeExhausted},
		{"a permanent error", &Error{Code: CodeInvalid, Cause: busy}, 1, OutcomeDead, 0, CodeInvalid},
		{"postponed", AsError(Postpone(time.Hour, busy)), 9, OutcomeRetry, time.Hour, CodeUnavailable},
	} {
		d := policy.Decide(c.err, c.attempt)
		if d.Outcome != c.want || d.After != c.after || d.Err.Code != c.code || !errors.Is(d.Err, c.err) {
			t.Errorf("%s: got %+v (%v), want %s after %v with %s", c.name, d, d.Err, c.want, c.after, c.code)
		}
	}
	other := errors.New("other")
	d := policy.Decide(other, 4)
	if d.Outcome != OutcomeRetry || d.Attempt != 5 || d.After < 6*time.Second || d.Err.Code != CodePanic || !errors.Is(d.Err, other) || len(d.Err.Stack) == 0 {
		t.Errorf("a panic: got %+v (%v), want a retry after the default wait that tells of it", d, d.Err)
	}
}

func TestNextDoesNotTravel(t *testing.T) {
	text, err := json.Marshal(Descriptor{Retry: Retry{Max: 3, Next: func(int, error) (time.Duration, bool) { return 0, false }}})
	if err != nil || !strings.Contains(string(text), `"retry":{"max":3}`) {
		t.Errorf("announced as %s, %v", text, err)
	}
}
