package memory

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/session/store"
	"github.com/rabbet-fn/rabbet/runtime/session/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return &Store{} })
}

func TestExpiredRecordsAreDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &Store{}
		add := func(key string) {
			t.Helper()
			if swapped, err := m.Swap(t.Context(), key, nil, []byte("value"), time.Hour); !swapped || err != nil {
				t.Fatalf("swap: got %v, %v", swapped, err)
			}
		}
		for i := range 1000 {
			add(fmt.Sprint(i))
		}
		time.Sleep(2 * time.Hour)
		add("last")
		if n := len(m.records); n != 1 {
			t.Errorf("%d records are left of 1000 that have expired and one that has not", n)
		}
	})
}
