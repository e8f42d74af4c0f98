package app_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// newProject makes the project shop in an empty folder outside of the repository, with
// the Rabbet of the repository.
func newProject(t *testing.T) (dir string) {
	t.Helper()
	parent := t.TempDir()
	rabbet := filepath.Join(parent, "rabbet")
	build(t, filepath.Join("..", ".."), rabbet, "./runtime/cmd/rabbet")
	out, err := runIn(parent, rabbet, "new", "shop")
	if err != nil {
		t.Fatalf("rabbet new shop: %v\n%s", err, out)
	}
	for _, want := range []string{"example.org/shop", "cd shop", "scripts/dev", "curl localhost:8080/greetings"} {
		if !strings.Contains(out, want) {
			t.Errorf("rabbet new shop: got %s, want %q in it", out, want)
		}
	}
	dir = filepath.Join(parent, "shop")
	before := tree(t, dir)
	if out, err := runIn(parent, rabbet, "new", "shop"); err == nil || !strings.Contains(out, "nothing was written") {
		t.Errorf("rabbet new shop, once more: got %q, %v", out, err)
	}
	if after := tree(t, dir); after != before {
		t.Errorf("rabbet new shop, once more: got %s, want %s", after, before)
	}
	return dir
}

func build(t *testing.T, dir, binary, pkg string) {
	t.Helper()
	if out, err := runIn(dir, "go", "build", "-o", binary, pkg); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
}

func runIn(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// tree lists the files below dir with their times.
func tree(t *testing.T, dir string) string {
	t.Helper()
	out, err := runIn(dir, "find", ".", "-type", "f", "-printf", "%p %T@ %s\n")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestNewProject does what the user of a new product does.
func TestNewProject(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles programs")
	}
	dir := newProject(t)
	if out, err := runIn(dir, "gofmt", "-l", "."); err != nil || out != "" {
		t.Errorf("gofmt -l: got %q, %v, want nothing", out, err)
	}
	if out, err := runIn(dir, "scripts/test"); err != nil {
		t.Fatalf("scripts/test: %v\n%s", err, out)
	}

	d := startDevOf(t, dir, ".")
	post := func(d *dev) (int, string) { return d.do("POST", "/greetings", `{"name":"Ada"}`) }
	d.eventually("the function answers", func() bool {
		code, got := post(d)
		return code == 200 && got == `{"text":"Hello, Ada"}`
	})
	d.eventually("the event is handled", func() bool { return strings.Contains(d.log.String(), `greeted	{"name": "Ada"}`) })

	t.Run("functions are added while it runs", func(t *testing.T) {
		d := d.in(t)
		for _, args := range [][]string{
			{"get-invoice", "--request", "GET /invoices/{id}"},
			{"list-invoices", "--request", "GET /invoices"},
			{"send-invoice", "--event", "order.placed"},
			{"thank", "--event", "greeting.made"}, // which package events has a type for
			{"audit", "--event", "#"},
		} {
			if out, err := d.rabbet(append([]string{"new", "function"}, args...)...); err != nil {
				t.Fatalf("new function %q: %v\n%s", args, err, out)
			}
		}
		d.eventually("the new function answers", func() bool {
			code, got := d.get("/invoices/42")
			return code == 200 && got == `{"id":"42"}`
		})
		out, err := d.rabbet("functions")
		for _, want := range []string{"audit", "get-invoice", "invoice.get", "list-invoices", "send-invoice", "order.placed", "thank", "greeting.made"} {
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("functions: got %q, %v, want %q in it", out, err, want)
			}
		}
		if source, err := os.ReadFile(filepath.Join(dir, "functions", "thank.go")); err != nil || !strings.Contains(string(source), "events.Greeted") {
			t.Errorf("thank.go: got %s, %v, want it to use events.Greeted", source, err)
		}
		if out, err := runIn(dir, "gofmt", "-l", "."); err != nil || out != "" {
			t.Errorf("gofmt -l: got %q, %v, want nothing", out, err)
		}
		if out, err := runIn(dir, "scripts/test"); err != nil {
			t.Errorf("scripts/test: %v\n%s", err, out)
		}
	})

	t.Run("what cannot work is refused and nothing is written", func(t *testing.T) {
		d := d.in(t)
		before := tree(t, filepath.Join(dir, "functions"))
		for _, refused := range []struct {
			args []string
			want string
		}{
			{[]string{"Bad", "--event", "a.b"}, "kebab-case"},
			{[]string{"send-invoice", "--event", "order.placed"}, "send_invoice.go exists"},
			{[]string{"call-js", "--event", "a.b"}, "the file call_js.go: Go leaves it out"},
			{[]string{"type", "--event", "a.b"}, "choose a longer one"},
			{[]string{"all", "--event", "ord*"}, "order.*"},
			{[]string{"deps", "--request", "FETCH"}, `such as "GET /`},
			{[]string{"show", "--request", "GET /functions/{id}"}, "the ingress keeps /functions"},
			{[]string{"show", "--request", "GET /a/{b}/{b}"}, "duplicate"},
			{[]string{"show-invoice", "--request", "GET /invoices/{number}"}, "get_invoice.go has the route"},
			{[]string{"test-deps", "--event", "a.b"}, "functions_test.go declares testDeps"},
			{[]string{"make-greeting", "--request", "GET /x"}, "greetings.go has a message with the routing key greeting.make"},
			{[]string{"show"}, "--event"},
			{[]string{"show", "--event", "a.b", "--request", "GET /x"}, "together"},
		} {
			if out, err := d.rabbet(append([]string{"new", "function"}, refused.args...)...); err == nil || !strings.Contains(out, refused.want) {
				t.Errorf("new function %q: got %q, %v; want it to say %q", refused.args, out, err, refused.want)
			}
		}
		if after := tree(t, filepath.Join(dir, "functions")); after != before {
			t.Errorf("got %s, want %s", after, before)
		}
	})
}

func TestNewProjectRefuses(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, refused := range []struct {
		args []string
		want string
	}{
		{[]string{"Shop"}, "lower-case"},
		{[]string{"shop", "--module", "shop"}, "write a domain"},
		{[]string{"shop", "--replace", "."}, "not a checkout of Rabbet"},
		{[]string{"function", "greet", "--event", "a.b"}, "there is no go.mod"},
	} {
		if out, notes, code := command(t, nil, append([]string{"new"}, refused.args...)...); code == 0 || !strings.Contains(notes, refused.want) {
			t.Errorf("new %q: got exit code %d, %q, %q; want it to say %q", refused.args, code, out, notes, refused.want)
		}
	}
	if entries, err := os.ReadDir("."); err != nil || len(entries) > 0 {
		t.Errorf("got %v, %v, want nothing written", entries, err)
	}
}
