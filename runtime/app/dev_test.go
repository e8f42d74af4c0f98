package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
)

// checkout copies the module's source into a folder of its own, so that a test
// may drop files into it.
func checkout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join("..", "..")
	for _, part := range []string{"go.mod", "go.sum", "functions", "events", "runtime"} {
		if out, err := exec.Command("cp", "-r", filepath.Join(root, part), dir).CombinedOutput(); err != nil {
			t.Fatalf("copy %s: %v\n%s", part, err, out)
		}
	}
	return dir
}

// dev is a `rabbet dev` that runs in a checkout.
type dev struct {
	t      *testing.T
	dir    string
	binary string
	base   string // URL of the ingress
	admin  string
	pid    int
	log    *syncBuffer
}

// startDev builds the checkout at dir and runs `rabbet dev` in it until the test ends.
func startDev(t *testing.T, dir string) *dev {
	t.Helper()
	d := startDevOf(t, dir, "./runtime/cmd/rabbet")
	d.eventually("the ingress is ready", func() bool { code, _ := d.get("/profiles/42"); return code == 200 })
	return d
}

// startDevOf builds the package of the module at dir and runs its `rabbet dev` there
// until the test ends.
func startDevOf(t *testing.T, dir, pkg string) *dev {
	t.Helper()
	binary := filepath.Join(dir, "rabbet")
	build(t, dir, binary, pkg)
	httpAddr, adminAddr := freeAddr(t), freeAddr(t)
	d := &dev{t: t, dir: dir, binary: binary, base: "http://" + httpAddr, admin: "http://" + adminAddr, log: &syncBuffer{}}
	cmd := exec.Command(binary, "dev")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "RABBET_HTTP_ADDR="+httpAddr, "RABBET_ADMIN_ADDR="+adminAddr)
	cmd.Stdout, cmd.Stderr = d.log, d.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("rabbet dev ended with %v", err)
		}
		if t.Failed() {
			t.Logf("rabbet dev wrote:\n%s", d.log)
		}
	})
	d.pid = cmd.Process.Pid
	return d
}

// in is d for a subtest, which is then the one that fails.
func (d *dev) in(t *testing.T) *dev {
	of := *d
	of.t = t
	return &of
}

// rabbet runs the command line tool in d's folder.
func (d *dev) rabbet(args ...string) (string, error) {
	cmd := exec.Command(d.binary, args...)
	cmd.Dir = d.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (d *dev) get(path string) (int, string) {
	return d.do(http.MethodGet, path, "")
}

func (d *dev) do(method, path, body string) (int, string) {
	r, err := http.NewRequest(method, d.base+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, strings.TrimSpace(string(b))
}

// mails counts how often the page of the mail catcher says text.
func (d *dev) mails(text string) int {
	response, err := http.Get(d.admin + "/mail")
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	page, _ := io.ReadAll(response.Body)
	return strings.Count(string(page), text)
}

// eventually polls for what another process does; a minute is far more than any of it takes.
func (d *dev) eventually(what string, ok func() bool) {
	d.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatalf("not within a minute: %s\n%s", what, d.log)
		}
	}
}

func (d *dev) write(name, content string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(content), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// freeAddr is an address on which nothing listens. Its port is below those that
// the system assigns by itself, so that nothing takes it meanwhile.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(10_000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("found no free port")
	return ""
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

const greetSource = `package functions

import (
	"context"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

type greet struct {
	Name string %[1]sjson:"name"%[1]s
}

func (greet) RoutingKey() string { return "greeting.make" }

func init() {
	faas.OnRequest(&All, "greet", func(_ context.Context, _ *Deps, in greet) (string, error) {
		return "%[2]s, " + in.Name, nil
	}, faas.HTTP("GET /greetings/{name}"))
}
`

// visitsSource is a function that counts the visits of its client.
const visitsSource = `package functions

import (
	"context"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

type visit struct{}

func (visit) RoutingKey() string { return "visit.count" }

func init() {
	faas.OnRequest(&All, "visits", func(ctx context.Context, _ *Deps, _ visit) (int, error) {
		session, n := faas.Session(ctx), 0
		if _, err := session.Get("visits", &n); err != nil {
			return 0, err
		}
		return n + 1, session.Set("visits", n+1)
	}, faas.HTTP("POST /visits"), faas.UsesSession())
}
`

// fatalSource is a function that ends its process.
const fatalSource = `package functions

import (
	"context"
	"os"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

type fatal struct {
	How string ` + "`json:\"how\"`" + `
}

func (fatal) RoutingKey() string { return "fatal.now" }

func init() {
	faas.OnRequest(&All, "fatal", func(ctx context.Context, _ *Deps, in fatal) (string, error) {
		if in.How == "exit" {
			os.Exit(0)
		}
		go panic("this is not recovered")
		<-ctx.Done()
		return "", ctx.Err()
	}, faas.HTTP("POST /fatal/{how}"))
}
`

// relaySource is a function that calls another, once there is no file "wait".
const relaySource = `package functions

import (
	"context"
	"os"
	"time"

	"github.com/rabbet-fn/rabbet/events"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

type relay struct{}

func (relay) RoutingKey() string { return "relay.call" }

func init() {
	faas.OnRequest(&All, "relay", func(ctx context.Context, d *Deps, _ relay) (events.Profile, error) {
		for {
			if _, err := os.Stat("wait"); err != nil {
				return faas.Call[events.Profile](ctx, d.Bus, events.GetProfile{ID: "42"})
			}
			if err := os.WriteFile("waits", nil, 0o644); err != nil {
				return events.Profile{}, err
			}
			time.Sleep(10 * time.Millisecond)
		}
	}, faas.HTTP("GET /relayed"))
}
`

// visitor is a client that keeps cookies as a browser does: without TLS it
// sends none that are Secure.
type visitor struct {
	d      *dev
	client http.Client
}

func newVisitor(t *testing.T, d *dev) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &visitor{d, http.Client{Jar: jar}}
}

// visit returns which visit it is.
func (v *visitor) visit() string {
	response, err := v.client.Post(v.d.base+"/visits", "application/json", nil)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func greetFile(salutation string) string { return fmt.Sprintf(greetSource, "`", salutation) }

// TestDev is what a newcomer does in the first minutes.
func TestDev(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles programs")
	}
	dir := checkout(t)
	for name, source := range map[string]string{"fatal": fatalSource, "relay": relaySource} {
		if err := os.WriteFile(filepath.Join(dir, "functions", name+".go"), []byte(source), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	left := filepath.Join(dir, ".rabbet", "dev", "rabbet-1-1")
	if err := errors.Join(os.MkdirAll(filepath.Dir(left), 0o755), os.WriteFile(left, nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	d := startDev(t, dir)
	if _, err := os.Stat(left); err == nil {
		t.Error("what a killed rabbet dev has compiled is still there")
	}

	t.Run("a function that ends its process ends nothing else", func(t *testing.T) {
		d := d.in(t)
		for i, how := range []string{"exit", "panic"} {
			if code, got := d.do(http.MethodPost, "/fatal/"+how, "{}"); code < 500 {
				t.Errorf("%s: got %d %s, want a server error", how, code, got)
			}
			d.eventually("the functions answer again", func() bool {
				code, _ := d.do(http.MethodPut, "/profiles/42", `{"name":"Again","email":"ada@example.org"}`)
				return code == 200
			})
			if n := strings.Count(d.log.String(), "has ended by itself"); n != i+1 {
				t.Errorf("%s: it is told %d times, want %d", how, n, i+1)
			}
		}
	})

	t.Run("a change is read back at once and mailed", func(t *testing.T) {
		d := d.in(t)
		for i := range 20 {
			name := fmt.Sprintf("Ada %d", i)
			body := fmt.Sprintf(`{"name":%q,"email":"ada@example.org"}`, name)
			if code, got := d.do(http.MethodPut, "/profiles/42", body); code != 200 {
				t.Fatalf("PUT: got %d %s", code, got)
			}
			if code, got := d.get("/profiles/42"); code != 200 || !strings.Contains(got, name+`"`) {
				t.Fatalf("GET after PUT of %q: got %d %s", name, code, got)
			}
		}
		d.eventually("the mail is in the catcher", func() bool { return d.mails("Ada 19") > 0 })
	})

	t.Run("the command line reaches it", func(t *testing.T) {
		d := d.in(t)
		if out, err := d.rabbet("dev"); err == nil || !strings.Contains(out, "another 'rabbet dev' runs in this folder") {
			t.Errorf("dev, once more: got %q, %v", out, err)
		}
		if out, err := d.rabbet("call", "get-profile", `{"id":"42"}`); err != nil || !strings.Contains(out, `"id":"42"`) {
			t.Errorf("call get-profile: got %q, %v", out, err)
		}
		if out, err := d.rabbet("call", "profile.get", `{"id":"42"}`); err != nil || !strings.Contains(out, `"id":"42"`) {
			t.Errorf("call profile.get: got %q, %v", out, err)
		}
		if out, err := d.rabbet("call", "get-profile", `{"id":"no-such"}`); err == nil || !strings.Contains(out, "not-found") {
			t.Errorf("call for no profile: got %q, %v", out, err)
		}
		if out, err := d.rabbet("publish", "profile.updated", `{"id":"42"}`); err != nil {
			t.Errorf("publish: got %q, %v", out, err)
		}
		if out, err := d.rabbet("publish", "no.queue", `{}`); err == nil || !strings.Contains(out, "nothing is bound") {
			t.Errorf("publish to no queue: got %q, %v", out, err)
		}
		out, err := d.rabbet("functions")
		for _, want := range []string{"get-profile", "GET /profiles/{id}", "profile.updated", "5m"} {
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("functions: got %q, %v, want %q in it", out, err, want)
			}
		}
		if strings.Contains(out, config.DevKeys) {
			t.Errorf("functions: got %q, with those of rabbet dev itself", out)
		}
	})

	t.Run("cached results are shown and invalidated", func(t *testing.T) {
		d := d.in(t)
		d.get("/profiles/42")
		for _, step := range []struct {
			command []string
			want    []string
		}{
			{[]string{"cache", "get", "get-profile", `{"id":"42"}`}, []string{"fresh for ", "profile:42  agrees", `{"id":"42",`}},
			{[]string{"cache", "invalidate", "profile:42", "profile:43"}, []string{"invalidated profile:42\ninvalidated profile:43\n"}},
			{[]string{"cache", "get", "profile.get", `{"id":"42"}`}, []string{" old, invalidated:", "profile:42  invalidated since\n"}},
			{[]string{"cache", "get", "get-profile", `{"id":"44"}`}, []string{"nothing\n", "profile:44\n"}},
			{[]string{"cache", "stats"}, []string{"PROCESS", "  -\n"}},
		} {
			out, err := d.rabbet(step.command...)
			if err != nil {
				t.Errorf("%q: got %q, %v", step.command, out, err)
			}
			for _, want := range step.want {
				if !strings.Contains(out, want) {
					t.Errorf("%q: got %q, want %q in it", step.command, out, want)
				}
			}
		}
		for _, refused := range []struct {
			command []string
			want    string
		}{
			{[]string{"get", "update-profile"}, "not cached"},
			{[]string{"get", "get-profile"}, `no field "id"`},
			{[]string{"get", "get-profile", `{"id":"1","ID":"2"}`}, "a member twice"},
			{[]string{"get", "get-profile", `[]`}, "not a JSON object"},
			{[]string{"get", "typo"}, `no function "typo"`},
			{[]string{"stats", "--wait", "0s"}, "--wait 0s"},
		} {
			if out, err := d.rabbet(append([]string{"cache"}, refused.command...)...); err == nil || !strings.Contains(out, refused.want) {
				t.Errorf("cache %q: got %q, %v; want it to say %q", refused.command, out, err, refused.want)
			}
		}
	})

	// publishOnce publishes one and the same event, whenever it is called.
	publishOnce := func(d *dev) {
		d.t.Helper()
		event := `{"specversion":"1.0","id":"one","source":"/test","type":"email.requested","data":{"to":"ada@example.org","subject":"Only once"}}`
		response, err := http.Post(d.base+"/events", "application/cloudevents+json", strings.NewReader(event))
		if err != nil {
			d.t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusAccepted {
			d.t.Fatalf("POST /events: got %d", response.StatusCode)
		}
	}
	suppressed := func(d *dev) int {
		return strings.Count(d.log.String(), `skipped an event: its key is done	{"function": "send-email", "id": "one"}`)
	}

	t.Run("an event that is published twice is mailed once", func(t *testing.T) {
		d := d.in(t)
		publishOnce(d)
		d.eventually("the mail is in the catcher", func() bool { return d.mails("Only once") == 1 })
		publishOnce(d)
		d.eventually("the copy is recognised", func() bool { return suppressed(d) == 1 })
	})

	t.Run("a dropped file is live and no request fails", func(t *testing.T) {
		d := d.in(t)
		stop := steadyRequests(t, d)
		d.write("functions/greet.go", greetFile("Hello"))
		d.write("functions/visits.go", visitsSource)
		d.write("functions/call_js.go", "package functions\n")
		d.eventually("the dropped function answers", func() bool {
			code, got := d.get("/greetings/Ada")
			return code == 200 && got == `"Hello, Ada"`
		})
		d.eventually("the ignored file is reported", func() bool { return strings.Contains(d.log.String(), "Go leaves out call_js.go") })
		if code, got := d.get("/profiles/42"); code != 200 {
			t.Errorf("GET /profiles/42 from the new worker: got %d %s", code, got)
		}
		if code, got := d.do(http.MethodPut, "/profiles/42", `{"name":"After","email":"ada@example.org"}`); code != 200 {
			t.Errorf("PUT to the new worker: got %d %s", code, got)
		}
		if code, got := d.get("/profiles/42"); code != 200 || !strings.Contains(got, "After") {
			t.Errorf("GET after PUT to the new worker: got %d %s", code, got)
		}

		visitor := newVisitor(t, d)
		d.eventually("the first visit is counted", func() bool { return visitor.visit() == "1" })

		d.write("functions/greet.go", "package functions\n\nfunc broken( {\n")
		d.eventually("the compiler's error is shown", func() bool { return strings.Contains(d.log.String(), "greet.go:3") })
		if code, got := d.get("/greetings/Ada"); code != 200 || got != `"Hello, Ada"` {
			t.Errorf("after a file that does not compile: got %d %s", code, got)
		}

		d.write("functions/greet.go", greetFile("Welcome"))
		d.eventually("the mended function answers", func() bool { _, got := d.get("/greetings/Ada"); return got == `"Welcome, Ada"` })
		if got := visitor.visit(); got != "2" {
			t.Errorf("a session after the functions were replaced: this is visit %s, want 2", got)
		}

		twice := strings.NewReplacer("greet struct", "twice struct", "(greet)", "(twice)", "in greet", "in twice", "greeting", "twice")
		d.write("functions/twice.go", twice.Replace(greetFile("Twice")))
		var refusal string
		d.eventually("two functions with one name are refused", func() bool {
			_, after, _ := strings.Cut(d.log.String(), "two functions with one name")
			var complete bool
			refusal, _, complete = strings.Cut(after, "The functions of before go on.")
			return complete
		})
		if strings.Contains(refusal, "goroutine") || !strings.Contains(refusal, "twice.go:") || !strings.Contains(refusal, "greet.go:") {
			t.Errorf("got %s, want both places and no stack", refusal)
		}
		stop()
	})

	t.Run("reloaded functions know what was handled before", func(t *testing.T) {
		d := d.in(t)
		before := d.mails("Only once") // none, if later ones have pushed it off the page
		publishOnce(d)
		d.eventually("the copy is recognised", func() bool { return suppressed(d) == 2 })
		if n := d.mails("Only once"); n > before {
			t.Errorf("got %d mails more, want none", n-before)
		}
	})

	t.Run("a worker that dies is started anew", func(t *testing.T) {
		d := d.in(t)
		told := func() int { return strings.Count(d.log.String(), "has ended by itself") }
		before := told()
		for range 2 {
			var workers []int
			d.eventually("those of before have drained", func() bool { workers = d.workers(); return len(workers) == 1 })
			if err := syscall.Kill(workers[0], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			d.eventually("the functions answer again", func() bool {
				code, _ := d.do(http.MethodPut, "/profiles/42", `{"name":"Again","email":"ada@example.org"}`)
				return code == 200
			})
		}
		if n := told() - before; n != 2 {
			t.Errorf("it is told %d times, want 2", n)
		}
		d.write("functions/twice.go", "package functions\n") // it kept the last change from being taken up
		d.write("functions/greet.go", greetFile("Still"))
		d.eventually("a change is taken up", func() bool { _, got := d.get("/greetings/Ada"); return got == `"Still, Ada"` })
	})

	t.Run("a function whose file is deleted is gone", func(t *testing.T) {
		d := d.in(t)
		for _, name := range []string{"visits", "fatal"} {
			if err := os.Remove(filepath.Join(d.dir, "functions", name+".go")); err != nil {
				t.Fatal(err)
			}
		}
		d.eventually("its route is unknown", func() bool { code, _ := d.do(http.MethodPost, "/visits", "{}"); return code == 404 })
		if out, err := d.rabbet("functions"); err != nil || strings.Contains(out, "visits") || strings.Contains(out, "fatal") || !strings.Contains(out, "greet") {
			t.Errorf("functions: got %q, %v, want it without visits and fatal", out, err)
		}
	})

	t.Run("Ctrl-C lets a request finish that needs another function", func(t *testing.T) {
		d := d.in(t)
		d.write("wait", "")
		answer := make(chan string, 1)
		go func() { // ends with the request
			code, got := d.get("/relayed")
			answer <- fmt.Sprint(code, " ", got)
		}()
		d.eventually("the function runs", func() bool { _, err := os.Stat(filepath.Join(d.dir, "waits")); return err == nil })
		for _, pid := range append(d.workers(), d.pid) { // as the terminal does
			if err := syscall.Kill(pid, syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
		d.eventually("it is about to end", func() bool { code, _ := d.get("/readyz"); return code != 200 })
		if err := os.Remove(filepath.Join(d.dir, "wait")); err != nil {
			t.Fatal(err)
		}
		if got := <-answer; !strings.HasPrefix(got, `200 {"id":"42"`) {
			t.Errorf("got %s, want the profile", got)
		}
	})
}

// workers are the processes in which rabbet dev hosts the functions.
func (d *dev) workers() (pids []int) {
	d.t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", d.pid))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, list := range lists {
		children, _ := os.ReadFile(list) // nothing, if the thread has ended
		for child := range strings.FieldsSeq(string(children)) {
			program, err := os.Readlink(filepath.Join("/proc", child, "exe"))
			if err != nil || !strings.HasPrefix(program, d.dir+"/") {
				continue // it has ended, or is the compiler
			}
			pid, err := strconv.Atoi(child)
			if err != nil {
				d.t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// steadyRequests asks every 10 ms until the returned function is called, which
// fails the test if any request was not answered with success.
func steadyRequests(t *testing.T, d *dev) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var sent, failed atomic.Int64
	var first atomic.Value
	var requests sync.WaitGroup
	requests.Go(func() { // ends when stop is called
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			requests.Go(func() {
				sent.Add(1)
				code, got := d.get("/profiles/42")
				if i%4 == 1 { // never from the cache: it reaches a function, and an event follows
					code, got = d.do(http.MethodPut, "/profiles/7", `{"name":"Grace Hopper","email":"grace@example.org"}`)
				}
				if code != 200 || !json.Valid([]byte(got)) {
					failed.Add(1)
					first.CompareAndSwap(nil, fmt.Sprintf("%d %s", code, got))
				}
			})
		}
	})
	return func() {
		cancel()
		requests.Wait()
		t.Logf("%d requests, %d failed", sent.Load(), failed.Load())
		if failed.Load() > 0 || sent.Load() < 100 {
			t.Errorf("%d of %d requests failed, the first with %v", failed.Load(), sent.Load(), first.Load())
		}
	}
}
