package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is one whose CPU time is measured.
type process struct {
	name string
	pid  int
}

// cpu is the CPU time that p has used, all its threads together.
func (p process) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return 0, fmt.Errorf("CPU time of %s: %w", p.name, err)
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	var ticks int
	for _, i := range []int{11, 12} { // utime and stime, in ticks of 1/100 s
		n, err := strconv.Atoi(string(fields[i]))
		if err != nil {
			return 0, fmt.Errorf("CPU time of %s: %w", p.name, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// service is one that scripts/stack started.
func (s settings) service(name string) (process, error) {
	line, err := os.ReadFile(filepath.Join(s.services, "run", name+".pid"))
	if err != nil {
		return process{}, err
	}
	pid, err := strconv.Atoi(strings.Fields(string(line))[0])
	return process{name, pid}, err
}

// children are the processes that this one has started.
type children struct {
	logs    string
	started []*exec.Cmd
}

// start runs command with env on top of this process's own.
func (c *children) start(name string, env []string, command ...string) (process, error) {
	log, err := os.Create(filepath.Join(c.logs, name+".log"))
	if err != nil {
		return process{}, err
	}
	defer log.Close()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return process{}, fmt.Errorf("start %s: %w", name, err)
	}
	c.started = append(c.started, cmd)
	return process{name, cmd.Process.Pid}, nil
}

// stop ends them and waits for it. How they end is of no interest any more.
func (c *children) stop() {
	for _, cmd := range c.started {
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, cmd := range c.started {
		_ = cmd.Wait()
	}
	c.started = nil
}

// self returns this program, to be run under another verb.
func self() string {
	path, err := os.Executable()
	if err != nil {
		panic(err) // Linux always knows
	}
	return path
}

// freeAddr is an address on which nothing listens. Its port is below those that
// the system hands out by itself, so that nothing takes it meanwhile.
func freeAddr() (string, error) {
	var last error
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(10_000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String(), nil
		}
		last = err
	}
	return "", fmt.Errorf("find a free port: %w", last)
}

// answers waits until url answers 200, and returns the body.
func answers(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var last error
	for {
		once, done := context.WithTimeout(ctx, time.Second) // a call made before its worker is there is never answered
		body, err := get(once, url)
		done()
		if err == nil {
			return body, nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%s does not answer: %w", url, last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func get(ctx context.Context, url string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), err
}
