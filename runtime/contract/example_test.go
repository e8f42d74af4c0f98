package contract_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func ExampleRetry_Decide() {
	policy := contract.Retry{Max: 3, First: time.Second}
	fmt.Println(policy.Decide(nil, 1).Outcome)
	fmt.Println(policy.Decide(errors.New("refused"), 1).Outcome)
	fmt.Println(policy.Decide(errors.New("refused"), 3).Outcome)
	fmt.Println(policy.Decide(contract.Errorf(contract.CodeNotFound, "no such order"), 1).Outcome)
	// Output:
	// done
	// retry
	// dead
	// dead
}

func ExampleMatch() {
	fmt.Println(contract.Match("order.*", "order.placed"), contract.Match("order.*", "order.eu.placed"), contract.Match("order.#", "order"))
	// Output: true false true
}

func ExampleExpandTemplate() {
	fmt.Println(contract.ExpandTemplate("profile:{id}", func(string) (string, bool) { return "42", true }))
	// Output: profile:42 <nil>
}
