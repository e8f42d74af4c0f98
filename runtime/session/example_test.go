package session

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/session/memory"
)

func ExampleSessions() {
	sessions, err := New(&memory.Store{}, Config{})
	if err != nil {
		panic(err)
	}
	defer sessions.Close()

	// A client without a session gets one with the first value.
	ctx := context.Background()
	login := contract.SessionChange{Set: map[string]json.RawMessage{"user": json.RawMessage(`"ada"`)}}
	token, _, err := sessions.Save(ctx, "", login)
	if err != nil {
		panic(err)
	}
	values, found, err := sessions.Load(ctx, token)
	fmt.Println(string(values), found, err)
	// Output: {"user":"ada"} true <nil>
}
