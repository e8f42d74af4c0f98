package invocationlog_test

import (
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/invocationlog"
)

// A broker calls its observer after each run of a function.
func ExampleObserver() {
	observe := invocationlog.Observer(zap.NewExample())
	observe(contract.Invocation{
		Function: "greet", Key: "greet", ID: "1", Attempt: 1, Run: 2 * time.Millisecond, Outcome: contract.OutcomeDone,
	})
	observe(contract.Invocation{
		Function: "send-mail", Key: "person.greeted", ID: "2", Attempt: 1, Run: time.Second,
		Outcome: contract.OutcomeRetry, After: 10 * time.Second, Err: errors.New("the mail server is busy"),
	})
	// Output:
	// {"level":"info","msg":"invocation","function":"greet","key":"greet","id":"1","attempt":1,"run":"2ms","outcome":"done"}
	// {"level":"warn","msg":"invocation","function":"send-mail","key":"person.greeted","id":"2","attempt":1,"run":"1s","outcome":"retry","after":"10s","error":"the mail server is busy"}
}
