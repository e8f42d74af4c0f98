package dead

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/terminal"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/memory"
)

// bill and charge are what the functions of these tests react to.
type bill struct {
	ID       string   `json:"id"`
	Customer customer `json:"customer"`
}

type customer struct {
	ID   int    `json:"id"`
	Card string `json:"card,omitempty" sensitive:"true"`
}

func (bill) RoutingKey() string { return "bill" }

// fixture is a console on the dead letters of two functions: "bill" has a, b
// and c (customers 1, 2, 2), "audit" has a and x, which is binary. Functions
// succeed from now on, and say which events they got.
type fixture struct {
	*console
	out, notes bytes.Buffer
	ran        chan string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	b := memory.New(memory.Config{})
	t.Cleanup(func() { _ = b.Close() })
	g := &fixture{ran: make(chan string, 100)}
	failing := true // written before any event, and after the last has failed
	var set faas.Set[struct{}]
	faas.OnEvent(&set, "bill", func(ctx context.Context, _ *struct{}, in bill) error {
		if failing {
			return faas.NotFound("no customer %d", in.Customer.ID)
		}
		meta := contract.MetaOf(ctx)
		g.ran <- fmt.Sprintf("bill %s %s %d", meta.ID, in.ID, meta.Attempt)
		return nil
	})
	faas.OnEvent(&set, "audit", func(_ context.Context, _ *struct{}, e contract.Event) error {
		if failing {
			panic("audit\x1b[2J")
		}
		g.ran <- "audit " + e.ID + " " + string(e.Body)
		return nil
	}, faas.Keys("#"), contract.Retry{Max: 1})
	fns, err := set.With(&struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx, fns) }()
	t.Cleanup(func() { cancel(); <-served })
	awaitDead := func(want int) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			n := 0
			list, _ := b.DeadLetterCounts(t.Context())
			for _, f := range list {
				n += f.Letters
			}
			if n == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("got %d dead letters, want %d", n, want)
			}
		}
	}
	for len(b.Directory().Functions()) < 2 {
		time.Sleep(time.Millisecond)
	}
	publish := func(e contract.Event) {
		t.Helper()
		if err := b.Publish(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	publish(contract.Event{Key: "bill", ID: "a", Body: []byte(`{"id":"A", "customer":{"id":1,"card":"4111-1111"}}`)})
	awaitDead(2)
	publish(contract.Event{Key: "bill", ID: "b", Body: []byte(`{"id":"B","customer":{"id":2}}`)})
	awaitDead(4)
	publish(contract.Event{Key: "bill", ID: "c", Body: []byte(`{"id":"C","customer":{"id":2}}`)})
	awaitDead(6)
	publish(contract.Event{Key: "other", ID: "x", ContentType: "image/x", Headers: map[string]any{"color": "r\x1bed"}, Body: []byte{0, 1, 0xff}})
	awaitDead(7)
	g.console = &console{broker: b, out: &g.out, notes: &g.notes, in: strings.NewReader("")}
	if err := (&action{Yes: true}).act(t.Context(), g.console, "discard", contract.ActionDiscard, &selection{Function: []string{"audit"}, IDs: []string{"b", "c"}}); err != nil {
		t.Fatal(err)
	}
	awaitDead(5)
	g.out.Reset()
	g.notes.Reset()
	failing = false
	return g
}

// answer sets what is typed at the terminal next.
func (g *fixture) answer(s string) { g.in = strings.NewReader(s) }

// left returns the function and id of every letter there is.
func (g *fixture) left(t *testing.T) (list []string) {
	t.Helper()
	if _, err := g.find(t.Context(), &selection{}, func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		list = append(list, l.Function+" "+l.Event.ID)
		return contract.ActionKeep, nil
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

func (g *fixture) wantLeft(t *testing.T, want ...string) {
	t.Helper()
	if got := g.left(t); !slices.Equal(got, want) {
		t.Errorf("left: got %v, want %v", got, want)
	}
}

func (g *fixture) wantRuns(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for range want {
		select {
		case s := <-g.ran:
			got = append(got, s)
		case <-time.After(20 * time.Second):
			t.Fatalf("ran: got %v, want %v", got, want)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) || len(g.ran) > 0 {
		t.Errorf("ran: got %v and %d more, want %v", got, len(g.ran), want)
	}
}

func wantText(t *testing.T, what, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("%s: got\n%s\nwant %q in it", what, got, w)
		}
	}
}

func wantNoText(t *testing.T, what, got string, unwanted ...string) {
	t.Helper()
	for _, u := range unwanted {
		if strings.Contains(got, u) {
			t.Errorf("%s: got\n%s\nwant no %q in it", what, got, u)
		}
	}
}

func TestDeadList(t *testing.T) {
	g := newFixture(t)
	if err := (listCommand{}).run(t.Context(), g.console); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(g.out.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("got\n%s\nwant a heading and two groups", g.out.String())
	}
	wantText(t, "audit", lines[1], "audit ", " 2 ", `panic: the function failed: audit\u001b[`)
	wantText(t, "bill", lines[2], "bill ", " 3 ", "not-found: no customer …")

	g.out.Reset()
	if err := (listCommand{selection: selection{Function: []string{"bill"}, Field: []string{"customer.id=2"}}, OneByOne: true, JSON: true}).run(t.Context(), g.console); err != nil {
		t.Fatal(err)
	}
	var records []record
	if err := json.Unmarshal(g.out.Bytes(), &records); err != nil {
		t.Fatal(err)
	}
	if len(records) != 2 || records[0].ID != "b" || records[1].ID != "c" || records[0].Code != contract.CodeNotFound || records[0].Attempts != 1 {
		t.Errorf("got %+v, want b and c", records)
	}
	g.out.Reset()
	if err := (listCommand{selection: selection{Function: []string{"bill", "bill"}}}).run(t.Context(), g.console); err != nil {
		t.Fatal(err)
	}
	wantText(t, "bill, named twice", g.out.String(), "bill ", " 3 ")
	if err := (listCommand{selection: selection{IDs: []string{"a", "nobody"}}}).run(t.Context(), g.console); err == nil || !strings.Contains(err.Error(), `"nobody"`) {
		t.Errorf("an id that does not exist: got %v, want an error that names it", err)
	}
	if err := (listCommand{selection: selection{Function: []string{"typo"}}}).run(t.Context(), g.console); err == nil || !strings.Contains(err.Error(), `"typo"`) {
		t.Errorf("a function that never was: got %v, want an error that names it", err)
	}
}

// On a screen no row wraps; what is long has a line of its own where it is narrow.
func TestDeadListFitsTheScreen(t *testing.T) {
	for columns, want := range map[int]int{80: 12, 120: 6} {
		g := newFixture(t)
		g.columns = columns
		if err := (listCommand{OneByOne: true}).run(t.Context(), g.console); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(g.out.String()), "\n")
		if len(lines) != want {
			t.Errorf("%d columns: got\n%s\nwant %d lines", columns, g.out.String(), want)
		}
		for _, l := range lines {
			if utf8.RuneCountInString(l) > columns {
				t.Errorf("%d columns: %q is wider", columns, l)
			}
		}
	}
}

func TestDeadShow(t *testing.T) {
	g := newFixture(t)
	show := func(cmd showCommand) string {
		t.Helper()
		g.out.Reset()
		g.notes.Reset()
		if err := cmd.run(t.Context(), g.console); err != nil {
			t.Fatal(err)
		}
		return g.out.String()
	}
	text := show(showCommand{IDs: []string{"a"}, Function: []string{"bill"}})
	wantText(t, "a", text, "function       bill", "reason         not-found", "error          no customer", "attempts       1", `"card": "[redacted]"`, `"id": "A"`)
	wantNoText(t, "a", text, "4111")
	wantText(t, "notes", g.notes.String(), "--reveal")
	wantText(t, "a, revealed", show(showCommand{IDs: []string{"a"}, Function: []string{"bill"}, Reveal: true}), "4111-1111")
	text = show(showCommand{IDs: []string{"a"}})
	wantText(t, "a of both functions", text, "function       bill", "function       audit", "stack\n")
	text = show(showCommand{IDs: []string{"x"}})
	wantText(t, "x", text, "00 01 ff", `color: r\u001bed`, `audit\u001b[2J`)
	wantNoText(t, "x", text, "\x1b")

	g.broker = withoutFunctions{g.broker}
	text = show(showCommand{IDs: []string{"b"}, Function: []string{"bill"}})
	wantText(t, "b of an unknown function", text, contract.Redacted)
	wantNoText(t, "b of an unknown function", text, "customer\"")
	wantText(t, "notes", g.notes.String(), "no worker hosts the function")
}

// withoutFunctions knows of dead letters, and not of functions.
type withoutFunctions struct{ contract.DeadLetters }

func (withoutFunctions) Directory() *contract.Directory { return &contract.Directory{} }
func (withoutFunctions) Health() error                  { return nil }

func TestDeadReplay(t *testing.T) {
	g := newFixture(t)
	act := func(a action, sel selection) error {
		t.Helper()
		g.out.Reset()
		g.notes.Reset()
		return a.act(t.Context(), g.console, "replay", contract.ActionReplay, &sel)
	}
	all := g.left(t)
	customer2 := selection{Function: []string{"bill"}, Field: []string{"customer.id=2"}}
	for name, answer := range map[string]string{"no": "n\n", "nothing": "\n", "the end": ""} {
		g.answer(answer)
		if err := act(action{}, customer2); err != nil {
			t.Fatal(err)
		}
		wantText(t, name, g.notes.String(), "replay 2 dead letters of bill? [y/N]", "nothing was done")
	}
	if err := act(action{DryRun: true, Yes: true}, customer2); err != nil {
		t.Fatal(err)
	}
	wantText(t, "dry run", g.out.String(), "would replay 2 dead letters of bill", "not-found")
	g.wantLeft(t, all...)

	g.answer("y\n")
	if err := act(action{}, customer2); err != nil {
		t.Fatal(err)
	}
	wantText(t, "out", g.out.String(), "replayed 2 dead letters of bill")
	g.wantRuns(t, "bill b B 1", "bill c C 1")
	g.wantLeft(t, "audit a", "audit x", "bill a")

	if err := act(action{Yes: true}, selection{IDs: []string{"a", "b"}}); err == nil || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("an id that is gone: got %v, want an error that names it", err)
	}
	g.wantLeft(t, "audit a", "audit x", "bill a")
	if err := act(action{Yes: true, Rate: 1000}, selection{Limit: 2}); err != nil {
		t.Fatal(err)
	}
	wantText(t, "out", g.out.String(), "replayed 2 dead letters of audit")
	g.wantRuns(t, `audit a {"id":"A", "customer":{"id":1,"card":"4111-1111"}}`, "audit x \x00\x01\xff")
	g.wantLeft(t, "bill a")
}

func TestDeadDiscard(t *testing.T) {
	g := newFixture(t)
	if err := (&action{Yes: true}).act(t.Context(), g.console, "discard", contract.ActionDiscard, &selection{Key: "bill", Error: "CUSTOMER"}); err != nil {
		t.Fatal(err)
	}
	wantText(t, "out", g.out.String(), "discarded 3 dead letters of bill")
	g.wantLeft(t, "audit a", "audit x")
	g.wantRuns(t)
}

func TestDeadIsInterrupted(t *testing.T) {
	g := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := (&action{Yes: true}).act(ctx, g.console, "replay", contract.ActionReplay, &selection{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the cancellation", err)
	}
	if len(g.left(t)) != 5 {
		t.Error("an interrupted replay has lost letters")
	}
}

func TestDeadActionCheck(t *testing.T) {
	for name, c := range map[string]struct {
		action action
		sel    selection
		asks   bool
		want   string
	}{
		"nothing chosen":         {action{Yes: true}, selection{}, true, "which letters"},
		"all and more":           {action{Yes: true, All: true}, selection{Key: "x"}, true, "contradict"},
		"no terminal":            {action{All: true}, selection{}, false, "--yes"},
		"a field that is none":   {action{Yes: true}, selection{Field: []string{"id"}}, true, "customer.id=42"},
		"a limit that is none":   {action{Yes: true}, selection{Key: "x", Limit: -1}, true, "--limit"},
		"all, asked":             {action{All: true}, selection{}, true, ""},
		"a function, yes":        {action{Yes: true}, selection{Function: []string{"x"}}, false, ""},
		"ids, dry run":           {action{DryRun: true}, selection{IDs: []string{"x"}}, false, ""},
		"an age, and a question": {action{}, selection{Older: age(time.Hour)}, true, ""},
	} {
		err := c.action.check("replay", &c.sel, c.asks)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if _, usage := errors.AsType[*terminal.UsageError](err); err != nil && !usage {
			t.Errorf("%s: got %T, want a usage error", name, err)
		}
	}
}

func TestDeadEdit(t *testing.T) {
	g := newFixture(t)
	edit := func(cmd editCommand) error {
		t.Helper()
		g.out.Reset()
		g.notes.Reset()
		return cmd.run(t.Context(), g.console)
	}
	wantErr := func(what string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", what, err, want)
		}
	}
	fixed := `{"id":"fixed","customer":{"id":1}}`
	wantErr("two functions", edit(editCommand{ID: "a", Body: fixed, Yes: true}), "--function")
	wantErr("no letter", edit(editCommand{ID: "nobody", Body: fixed, Yes: true}), `"nobody"`)
	err := edit(editCommand{ID: "b", Body: `{"id":`, Yes: true})
	wantErr("no JSON", err, "not JSON")
	if _, path, ok := strings.Cut(err.Error(), "your text is in "); ok {
		path, _, _ = strings.Cut(path, " ")
		if text, err := os.ReadFile(path); err != nil || string(text) != `{"id":` {
			t.Errorf("what was typed: got %q, %v", text, err)
		}
		os.Remove(path)
	} else {
		t.Errorf("got %v, want it to say where what was typed is", err)
	}
	t.Setenv("VISUAL", "")
	t.Setenv("EDITOR", "")
	wantErr("no editor", edit(editCommand{ID: "b", Yes: true}), "EDITOR")
	t.Setenv("EDITOR", "sed -i s/1/9/")
	wantErr("sensitive", edit(editCommand{ID: "a", Function: "bill", Yes: true}), "--reveal")
	wantErr("binary", edit(editCommand{ID: "x", Yes: true}), "--file")
	t.Setenv("EDITOR", "false")
	wantErr("the editor fails", edit(editCommand{ID: "b", Yes: true}), "editor")
	t.Setenv("EDITOR", "true")
	if err := edit(editCommand{ID: "b"}); err != nil {
		t.Error(err)
	}
	wantText(t, "no change", g.notes.String(), "nothing was changed")
	g.wantLeft(t, "audit a", "audit x", "bill a", "bill b", "bill c")

	t.Setenv("EDITOR", "sed -i s/B/edited/")
	g.answer("y\n")
	if err := edit(editCommand{ID: "b"}); err != nil {
		t.Fatal(err)
	}
	wantText(t, "question", g.notes.String(), "replay the changed dead letter of bill? [y/N]")
	g.wantRuns(t, "bill b edited 1")
	if err := edit(editCommand{ID: "a", Function: "bill", Body: fixed, Keep: true, Yes: true}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(file, []byte("not binary any more\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := edit(editCommand{ID: "x", File: file, Yes: true}); err != nil {
		t.Fatal(err)
	}
	g.wantRuns(t, "audit x not binary any more\n")
	g.wantLeft(t, "audit a", "bill c", "bill a")
	if err := (&action{Yes: true}).act(t.Context(), g.console, "replay", contract.ActionReplay, &selection{Function: []string{"bill"}, IDs: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	g.wantRuns(t, "bill a fixed 1")
}

func TestDeadExport(t *testing.T) {
	g := newFixture(t)
	file := filepath.Join(t.TempDir(), "letters.jsonl")
	export := exportCommand{Output: file}
	if err := export.run(t.Context(), g.console); err != nil {
		t.Fatal(err)
	}
	wantText(t, "notes", g.notes.String(), "exported 5 dead letters (2 of audit, 3 of bill)", "1 of them without what is sensitive")
	if err := export.run(t.Context(), g.console); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a file that exists: got %v, want %v", err, os.ErrExist)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	bodies := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var r record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("%s: %v", lines.Bytes(), err)
		}
		bodies[r.Function+" "+r.ID] = string(r.Body) + string(r.BodyBase64)
	}
	for letter, want := range map[string]string{
		"bill a":  `{"id":"A","customer":{"id":1,"card":"[redacted]"}}`,
		"bill b":  `{"id":"B","customer":{"id":2}}`,
		"audit x": "\x00\x01\xff",
	} {
		if bodies[letter] != want {
			t.Errorf("%s: got %q, want %q", letter, bodies[letter], want)
		}
	}
	if err := (exportCommand{Reveal: true, selection: selection{IDs: []string{"a"}, Function: []string{"bill"}}}).run(t.Context(), g.console); err != nil {
		t.Fatal(err)
	}
	wantText(t, "revealed", g.out.String(), "4111-1111", `"code":"not-found"`)
	if len(g.left(t)) != 5 {
		t.Error("an export has taken letters away")
	}
}

func TestAgeAndSpeed(t *testing.T) {
	for text, want := range map[string]time.Duration{"90m": 90 * time.Minute, "7d": 168 * time.Hour, "0.5d": 12 * time.Hour} {
		var a age
		if err := a.UnmarshalText([]byte(text)); err != nil || time.Duration(a) != want {
			t.Errorf("age %s: got %v, %v; want %v", text, time.Duration(a), err, want)
		}
	}
	for _, text := range []string{"", "x", "-1h", "0s", "0d", "d", "9e99d"} {
		if err := new(age).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("age %q: got nil, want an error", text)
		}
	}
	for text, want := range map[string]speed{"50/s": 50, "30/m": 0.5, "7": 7, "1.5/s": 1.5} {
		var s speed
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("rate %s: got %v, %v; want %v", text, s, err, want)
		}
	}
	for _, text := range []string{"", "x", "0/s", "-1/s", "5/d", "NaN/s"} {
		if err := new(speed).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("rate %q: got nil, want an error", text)
		}
	}
}
