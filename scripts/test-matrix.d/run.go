package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/brokertest/rabbitmq"
)

// result is what came of the tests against one broker.
type result struct {
	outcome map[string]string // of each test that has no subtests: pass, fail, skip
	took    time.Duration
}

func (r result) ok() bool {
	for _, o := range r.outcome {
		if o == "fail" {
			return false
		}
	}
	return len(r.outcome) > 0
}

// event is one line of go test -json; see go doc test2json.
type event struct{ Action, Test, Output string }

// goTest runs the tests against the node, with all that they print in the file
// log, and the output of those that fail on stderr as well.
func goTest(ctx context.Context, node *rabbitmq.Node, log string) (result, error) {
	file, err := os.Create(log)
	if err != nil {
		return result{}, err
	}
	defer file.Close()
	arguments := []string{"test", "-race", "-count=1", "-json", "-timeout=30m", "-run=" + cmp.Or(os.Getenv("RABBET_MATRIX_RUN"), "."), packageDir + "/..."}
	cmd := exec.CommandContext(ctx, "go", arguments...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // go test and the test binary stop together
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1",
		"RABBET_TEST_AMQP_URL="+node.URL(), "RABBET_TEST_AMQP_MANAGEMENT_URL="+node.Management())
	cmd.Stderr = file
	out, err := cmd.StdoutPipe()
	if err != nil {
		return result{}, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return result{}, err
	}
	r, err := readEvents(io.TeeReader(out, file))
	if err != nil {
		return result{}, err
	}
	r.took = time.Since(began)
	err = cmd.Wait()
	if _, failed := errors.AsType[*exec.ExitError](err); failed && ctx.Err() == nil {
		if len(r.outcome) == 0 || r.ok() { // it ended in another way than by a test
			return r, fmt.Errorf("go test: %w: see %s", err, log)
		}
		return r, nil
	}
	return r, err
}

func readEvents(from io.Reader) (result, error) {
	r := result{outcome: map[string]string{}}
	parents := map[string]bool{}
	output := map[string]string{}
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			return r, err
		}
		var e event
		if json.Unmarshal([]byte(line), &e) != nil || e.Test == "" {
			continue
		}
		if i := strings.LastIndexByte(e.Test, '/'); i > 0 {
			parents[e.Test[:i]] = true
		}
		switch e.Action {
		case "output":
			output[e.Test] += e.Output
		case "pass", "fail", "skip":
			r.outcome[e.Test] = e.Action
			if e.Action == "fail" {
				fmt.Fprint(os.Stderr, output[e.Test])
			}
			delete(output, e.Test)
		}
	}
	for p := range parents {
		if r.outcome[p] != "fail" { // one may fail by itself
			delete(r.outcome, p)
		}
	}
	return r, nil
}
