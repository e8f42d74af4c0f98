package functions

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/events"
	"github.com/rabbet-fn/rabbet/functions/stores"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/mail"
	"github.com/rabbet-fn/rabbet/runtime/outbox"
)

// world is everything that a function may touch, in memory. What happens to it
// is written down in order.
type world struct {
	profiles map[string]events.Profile
	journal  []string
	stored   []outbox.Record // to be published
	sent     []mail.Message
	fail     map[string]error // by what fails: "save", "invalidate", "send", "read"
}

func newWorld(profiles ...events.Profile) (*world, *Deps) {
	w := &world{profiles: map[string]events.Profile{}, fail: map[string]error{}}
	for _, p := range profiles {
		w.profiles[p.ID] = p
	}
	return w, &Deps{Profiles: w, Mail: w, Bus: w, Results: w, Log: zap.NewNop()}
}

func (w *world) ByID(_ context.Context, id string) (events.Profile, error) {
	if err := w.fail["read"]; err != nil {
		return events.Profile{}, err
	}
	p, ok := w.profiles[id]
	if !ok {
		return events.Profile{}, stores.ErrNotFound
	}
	return p, nil
}

func (w *world) Save(_ context.Context, p events.Profile, outgoing ...outbox.Record) error {
	w.journal = append(w.journal, "save "+p.ID)
	if w.fail["save"] == nil {
		w.profiles[p.ID] = p
		w.stored = append(w.stored, outgoing...)
	}
	return w.fail["save"]
}

func (w *world) Invalidate(_ context.Context, tags ...string) error {
	w.journal = append(w.journal, "invalidate "+strings.Join(tags, ","))
	return w.fail["invalidate"]
}

func (w *world) Publish(_ context.Context, m faas.Message, _ ...faas.PublishOption) error {
	w.journal = append(w.journal, "publish "+m.RoutingKey())
	return nil
}

func (w *world) Request(context.Context, faas.Message) (faas.Reply, error) {
	return faas.Reply{}, faas.ErrUnroutable
}

func (w *world) Send(_ context.Context, m mail.Message) error {
	if w.fail["send"] == nil {
		w.sent = append(w.sent, m)
	}
	return w.fail["send"]
}

var ada = events.Profile{ID: "1", Name: "Ada", Email: "ada@example.com"}

func TestGetProfile(t *testing.T) {
	w, d := newWorld(ada)
	if got, err := getProfile(t.Context(), d, events.GetProfile{ID: "1"}); err != nil || got != ada {
		t.Errorf("got %+v, %v; want %+v", got, err, ada)
	}
	if _, err := getProfile(t.Context(), d, events.GetProfile{ID: "2"}); !errors.Is(err, faas.ErrNotFound) {
		t.Errorf("an unknown id: got %v, want faas.ErrNotFound", err)
	}
	w.fail["read"] = stores.ErrUnavailable
	if _, err := getProfile(t.Context(), d, events.GetProfile{ID: "1"}); !errors.Is(err, faas.ErrUnavailable) {
		t.Errorf("with the database locked: got %v, want faas.ErrUnavailable", err)
	}
}

func TestUpdateProfile(t *testing.T) {
	_, d := newWorld(ada)
	w := d.Profiles.(*world)
	ctx := faas.WithMeta(t.Context(), faas.Meta{ID: "call", Correlation: "chain", Trace: faas.Trace{Parent: "trace"}})
	got, err := updateProfile(ctx, d, events.UpdateProfile{ID: "1", Name: " Ada Lovelace ", Email: "ada@example.org"})
	want := events.Profile{ID: "1", Name: "Ada Lovelace", Email: "ada@example.org"}
	if err != nil || got != want || w.profiles["1"] != want {
		t.Errorf("got %+v, %v, stored %+v; want %+v", got, err, w.profiles["1"], want)
	}
	order := []string{"save 1", "invalidate profile:1"}
	if !slices.Equal(w.journal, order) {
		t.Errorf("got %q, want %q", w.journal, order)
	}
	if len(w.stored) != 1 {
		t.Fatalf("got %d events with the profile, want one", len(w.stored))
	}
	var e faas.Event
	if err := json.Unmarshal(w.stored[0].Event, &e); err != nil {
		t.Fatal(err)
	}
	if e.Key != "profile.updated" || e.Key != w.stored[0].Key || e.ID == "" || e.ID != w.stored[0].ID || e.Time.IsZero() ||
		e.Correlation != "chain" || e.Causation != "call" || e.Trace.Parent != "trace" {
		t.Errorf("stored %+v as %+v, want it complete", e, w.stored[0])
	}
	if body := `{"id":"1","name":"Ada Lovelace","email":"ada@example.org"}`; string(e.Body) != body {
		t.Errorf("stored the body %s, want %s", e.Body, body)
	}
}

func TestUpdateProfileWhenSomethingFails(t *testing.T) {
	for what, wantErr := range map[string]bool{"save": true, "invalidate": false} {
		w, d := newWorld()
		w.fail[what] = errors.New("broken")
		_, err := updateProfile(t.Context(), d, events.UpdateProfile(ada))
		if (err != nil) != wantErr {
			t.Errorf("%s fails: got %v, want an error: %v", what, err, wantErr)
		}
		if what == "invalidate" && len(w.stored) != 1 {
			t.Error("without the event nothing invalidates later")
		}
	}
}

func TestUpdateProfileChecks(t *testing.T) {
	long := strings.Repeat("x", 201)
	for _, tt := range []struct{ id, name, email, pointer string }{
		{"", "Ada", "ada@example.com", "/id"},
		{long, "Ada", "ada@example.com", "/id"},
		{"1\x00", "Ada", "ada@example.com", "/id"},
		{"1", "", "ada@example.com", "/name"},
		{"1", " \t ", "ada@example.com", "/name"},
		{"1", long, "ada@example.com", "/name"},
		{"1", "Ada\r\nBcc: eve@example.com", "ada@example.com", "/name"},
		{"1", "Ada\xff", "ada@example.com", "/name"},
		{"1", "Ada", "", "/email"},
		{"1", "Ada", "ada", "/email"},
		{"1", "Ada", "Ada <ada@example.com>", "/email"},
		{"1", "Ada", "ada@example.com, eve@example.com", "/email"},
		{"1", "Ada", strings.Repeat("x", 250) + "@example.com", "/email"},
	} {
		w, d := newWorld()
		_, err := updateProfile(t.Context(), d, events.UpdateProfile{ID: tt.id, Name: tt.name, Email: tt.email})
		e := faas.AsError(err)
		if e == nil || e.Code != faas.CodeInvalid || len(e.Fields) != 1 || e.Fields[0].Pointer != tt.pointer || len(w.journal) > 0 {
			t.Errorf("%.20q %.20q %.20q: got %v after %q, want it invalid at %s and nothing done", tt.id, tt.name, tt.email, err, w.journal, tt.pointer)
		}
	}
}

// What get-profile's results are tagged with and what a change drops must be
// the same.
func TestChangesDropWhatIsCached(t *testing.T) {
	fns, err := All.With(&Deps{}, "get-profile")
	if err != nil {
		t.Fatal(err)
	}
	for _, template := range fns[0].Cache.Tags {
		tag, err := contract.ExpandTemplate(template, func(name string) (string, bool) { return "42", name == "id" })
		if want := (events.ProfileUpdated{ID: "42"}).CacheTags(); err != nil || !slices.Equal(want, []string{tag}) {
			t.Errorf("cached under %q (%v), dropped by %q", tag, err, want)
		}
	}
}

func TestInvalidateCache(t *testing.T) {
	w, d := newWorld()
	if err := invalidateCache(t.Context(), d, events.ProfileUpdated{ID: "1"}); err != nil || !slices.Equal(w.journal, []string{"invalidate profile:1"}) {
		t.Errorf("got %v, %q", err, w.journal)
	}
	w.fail["invalidate"] = errors.New("out of reach")
	if err := invalidateCache(t.Context(), d, events.ProfileUpdated{ID: "1"}); err == nil || faas.AsError(err).Permanent() {
		t.Errorf("with the cache down: got %v, want an error that is worth a retry", err)
	}
}

func TestSendEmail(t *testing.T) {
	w, d := newWorld(ada)
	ctx := faas.WithMeta(t.Context(), faas.Meta{ID: "the-event"})
	if err := sendEmail(ctx, d, events.EmailRequested{To: "eve@example.com", Subject: "S", Text: "T"}); err != nil {
		t.Fatal(err)
	}
	if want := (mail.Message{ID: "the-event", To: "eve@example.com", Subject: "S", Text: "T"}); w.sent[0] != want {
		t.Errorf("got %+v, want %+v", w.sent[0], want)
	}
	for _, in := range []events.ProfileUpdated{{ID: "1"}, events.ProfileUpdated(ada)} {
		if err := mailAboutProfile(ctx, d, in); err != nil {
			t.Fatal(err)
		}
		got := w.sent[len(w.sent)-1]
		if got.To != `"Ada" <ada@example.com>` || got.ID != "the-event" || !strings.Contains(got.Text, "Hello Ada") {
			t.Errorf("%+v: sent %+v", in, got)
		}
	}
}

func TestSendEmailOutcomes(t *testing.T) {
	for _, tt := range []struct {
		name      string
		fail      error
		in        events.ProfileUpdated
		permanent bool
	}{
		{"unknown profile", nil, events.ProfileUpdated{ID: "nobody"}, true},
		{"server out of reach", errors.New("connection refused"), events.ProfileUpdated(ada), false},
		{"rejected", mail.ErrRejected, events.ProfileUpdated(ada), true},
	} {
		w, d := newWorld()
		w.fail["send"] = tt.fail
		err := mailAboutProfile(t.Context(), d, tt.in)
		if err == nil || faas.AsError(err).Permanent() != tt.permanent {
			t.Errorf("%s: got %v, want it permanent: %v", tt.name, err, tt.permanent)
		}
	}
}
