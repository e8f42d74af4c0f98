package mailcatcher

import (
	"context"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/mail"
)

// A start that fails stops the catcher before it has begun.
func TestMailCatcherStopsAtOnce(t *testing.T) {
	for range 200 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		new(Catcher).Serve(l, zap.NewNop())()
	}
}

func TestMailCatcherShowsWhatItGot(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	catcher := &Catcher{}
	defer catcher.Serve(l, zap.NewNop())()
	sender, err := mail.Open("smtp://" + l.Addr().String() + "?tls=none")
	if err != nil {
		t.Fatal(err)
	}
	text := "Grüße & <b>more</b>, " + strings.Repeat("long line ", 20)
	if err := sender.Send(context.Background(), mail.Message{ID: "1", To: "ada@example.org", Subject: "Größe", Text: text}); err != nil {
		t.Fatal(err)
	}
	page := httptest.NewRecorder()
	catcher.ServeHTTP(page, httptest.NewRequest("GET", "/mail", nil))
	for _, want := range []string{"Größe", "ada@example.org", "Grüße &amp; &lt;b&gt;more&lt;/b&gt;, long line"} {
		if !strings.Contains(page.Body.String(), want) {
			t.Errorf("the page lacks %q:\n%s", want, page.Body)
		}
	}
}
