package app_test

import (
	"bufio"
	"context"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/functions"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// tallyFile names the file in which processes of the command note what they
// have processed; they host the functions of registerTally then.
const tallyFile = "TEST_TALLY"

type (
	tallyEvent struct {
		N string `json:"n"`
	}
	tallyGet struct {
		N string `json:"n"`
	}
	tallyPost struct {
		N string `json:"n"`
	}
)

func (tallyEvent) RoutingKey() string { return "tally.it" }
func (tallyGet) RoutingKey() string   { return "tally.get" }
func (tallyPost) RoutingKey() string  { return "tally.post" }

// registerTally adds an event function and two request functions, one of which
// must not run twice. Some runs take a while.
func registerTally(file string) {
	notes, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	work := func() {
		d := rand.N(5 * time.Millisecond)
		if rand.N(50) == 0 {
			d = 300 * time.Millisecond
		}
		time.Sleep(d)
	}
	faas.OnEvent(&functions.All, "tally", func(_ context.Context, _ *functions.Deps, in tallyEvent) error {
		work()
		_, err := notes.WriteString(in.N + "\n")
		return err
	})
	faas.OnRequest(&functions.All, "tally-get", func(_ context.Context, _ *functions.Deps, in tallyGet) (string, error) {
		work()
		return in.N, nil
	}, faas.HTTP("GET /tally/{n}"))
	faas.OnRequest(&functions.All, "tally-post", func(_ context.Context, _ *functions.Deps, in tallyPost) (string, error) {
		work()
		return in.N, nil
	}, faas.HTTP("POST /tally"))
}

// readTally returns how often each line stands in the file.
func readTally(t *testing.T, file string) map[string]int {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	counts := map[string]int{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		counts[lines.Text()]++
	}
	return counts
}

// part is a worker or an ingress as a process of its own, which can be
// replaced: it keeps its addresses.
type part struct {
	t     *testing.T
	args  []string
	env   []string
	http  string // host:port of an ingress
	admin string
	cmd   *exec.Cmd
	log   *syncBuffer
}

func newPart(t *testing.T, command string, env ...string) *part {
	p := &part{t: t, args: []string{command}, admin: freeAddr(t), http: freeAddr(t)}
	p.env = append(append(os.Environ(), env...), asCommand+"=1", "RABBET_LOG_LEVEL=warn",
		"RABBET_HTTP_ADDR="+p.http, "RABBET_ADMIN_ADDR="+p.admin)
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s wrote:\n%s", command, p.log)
		}
	})
	return p
}

// start returns once the process says that it is ready.
func (p *part) start() {
	p.t.Helper()
	p.begin()
	p.awaitReady()
}

// startAll starts them at once.
func startAll(parts ...*part) {
	for _, p := range parts {
		p.begin()
	}
	for _, p := range parts {
		p.awaitReady()
	}
}

func (p *part) begin() {
	p.t.Helper()
	p.cmd = exec.Command(os.Args[0], p.args...)
	p.log = &syncBuffer{}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = p.env, p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *part) awaitReady() {
	p.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !p.isReady(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("%s is not ready after a minute:\n%s", strings.Join(p.args, " "), p.log)
		}
	}
}

func (p *part) isReady() bool {
	response, err := http.Get("http://" + p.admin + "/readyz")
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// stop is SIGTERM, and the wait for a clean end.
func (p *part) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("%s ended with %v:\n%s", strings.Join(p.args, " "), err, p.log)
	}
}

// kill is kill -9.
func (p *part) kill() {
	if p.cmd != nil && p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}
