package feed

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func TestOfferDropsWhatTheConsumerCannotTake(t *testing.T) {
	f := New[int]()
	for i := range size + 10 {
		f.Offer(i)
	}
	var got []int
	f.Each(t.Context(), func(i int) {
		if got = append(got, i); len(got) == size {
			f.Stop()
		}
	})
	if len(got) != size || got[size-1] != size-1 {
		t.Errorf("got %d items, the last of them %d; want the first %d", len(got), got[len(got)-1], size)
	}
}

func TestListeners(t *testing.T) {
	var l Listeners
	received := make(chan string, 10)
	stop := l.Listen("cache.*", func(body []byte) { received <- string(body) })
	l.Broadcast("other", []byte("other"))
	l.Broadcast("cache.changed", []byte("changed"))
	if got := <-received; got != "changed" {
		t.Errorf("got %q, want the broadcast whose topic matches", got)
	}
	stop()
	stop()
	l.Stop()
	l.Listen("#", func([]byte) { t.Error("a listener that was added after Stop received a broadcast") })
	l.Broadcast("cache.changed", nil)
}
