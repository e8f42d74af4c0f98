package memory

import (
	"fmt"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/inbox/store"
	"github.com/rabbet-fn/rabbet/runtime/inbox/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return &Store{} })
}

func TestStoreIsBounded(t *testing.T) {
	m := &Store{}
	for i := range maxDone + 10 {
		if err := m.Complete(t.Context(), fmt.Sprint(i), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if len(m.keys) != maxDone || len(m.done) != maxDone {
		t.Errorf("it has %d keys and lists %d, want %d", len(m.keys), len(m.done), maxDone)
	}
}
