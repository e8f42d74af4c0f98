package rabbit

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/brokertest"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// processEnv holds the task of a process that is this test binary again, so
// that it can be killed as a worker or a publisher can.
const processEnv = "RABBET_TEST_PROCESS"

// task is what such a process does. Each line that it prints is a word and an id.
type task struct {
	URL, Namespace string
	NoBatch        bool

	Serve       bool   // host a function on Key, or functions that are called
	Slow        bool   // functions that are called take a minute
	Registers   string // host the functions of a history whose registers are there
	Publish     int    // publish so many events with Key, from event First on
	First       int
	Key         string
	Concurrency int
	Ordered     bool
}

// The words that processes print.
const (
	wordRan      = "ran"      // a function has run for the id; events at the end, calls at the beginning
	wordTrying   = "trying"   // the event is about to be published
	wordAccepted = "accepted" // Publish returned nil for it
)

// runAsProcess does the task of the environment, and does not return, if there is one.
func runAsProcess() {
	text := os.Getenv(processEnv)
	if text == "" {
		return
	}
	go func() { // ends with the process, as the process does with who started it
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	var k task
	err := json.Unmarshal([]byte(text), &k)
	if err == nil {
		err = k.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func say(word, id string) { _, _ = os.Stdout.WriteString(word + " " + id + "\n") }

func (k task) run() error {
	ctx := context.Background()
	b, err := Open(Config{URL: k.URL, Namespace: k.Namespace, NoBatch: k.NoBatch, Grace: 10 * time.Second})
	if err != nil {
		return err
	}
	if k.Registers != "" {
		fns, _, err := brokertest.RegisterFunctions(k.Registers)
		if err != nil {
			return err
		}
		return b.Serve(ctx, fns)
	}
	if k.Serve {
		return b.Serve(ctx, k.functions())
	}
	var publishers sync.WaitGroup
	for p := range loadPublishers {
		publishers.Go(func() {
			for i := k.First + p; i < k.Publish; i += loadPublishers {
				id := fmt.Sprintf("%s-%06d", k.Key, i)
				say(wordTrying, id)
				for b.Publish(ctx, contract.Event{Key: k.Key, ID: id}) != nil {
					time.Sleep(10 * time.Millisecond)
				}
				say(wordAccepted, id)
			}
		})
	}
	publishers.Wait()
	return nil
}

// poison is the id of an event that kills its worker.
const poison = "poison"

func (k task) functions() []contract.Function {
	if k.Key == "" {
		answer := func(_ context.Context, e *contract.Event) ([]byte, error) {
			say(wordRan, e.ID)
			if time.Sleep(5 * time.Millisecond); k.Slow {
				time.Sleep(time.Minute)
			}
			return e.Body, nil
		}
		return []contract.Function{function("again", answer, readOnly), function("once", answer)}
	}
	fn := onEvent(strings.ReplaceAll(k.Key, ".", "-"), k.Key, func(_ context.Context, e *contract.Event) error {
		if e.ID == poison {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		if e.Attempt != 1 {
			return faas.Permanent("attempt %d", e.Attempt)
		}
		say(wordRan, e.ID)
		return nil
	})
	fn.Concurrency, fn.Ordered = k.Concurrency, k.Ordered
	return []contract.Function{fn}
}

// process is one that runs.
type process struct {
	cmd  *exec.Cmd
	over chan struct{} // closed once it has ended and all that it printed was heard
	err  error         // of its end
}

// startProcess starts a process with the task; hear is told what it prints.
func startProcess(t testing.TB, k task, hear func(word, id string)) *process {
	t.Helper()
	text, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(os.Args[0]), over: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), processEnv+"="+string(text))
	p.cmd.Stderr = os.Stderr
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process
		defer close(p.over)
		defer stdin.Close()
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			word, id, _ := strings.Cut(lines.Text(), " ")
			hear(word, id)
		}
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(p.kill)
	return p
}

// kill is kill -9; it returns once all that the process said was heard.
func (p *process) kill() {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		panic(err)
	}
	<-p.over
}
