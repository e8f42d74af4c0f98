package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
)

// child is a process of ours that is started again when it dies, until it is
// to end. It dies with this process.
type child struct {
	name     string
	verb     string
	url      string
	reported func(id uint32)    // called with each id that it reports
	started  func(in io.Writer) // called with each stdin of it; nil if it reads nothing
	failed   func(err error)    // called when it cannot be started
	mu       sync.Mutex
	cmd      *exec.Cmd // nil while there is none
	in       io.Closer // its stdin
	ending   bool
	over     sync.WaitGroup
}

// run keeps it running until end.
func (c *child) run() {
	c.over.Go(func() {
		runtime.LockOSThread() // Pdeathsig comes when the thread that started it ends
		defer runtime.UnlockOSThread()
		for !c.isEnding() {
			if err := c.once(); err != nil {
				c.failed(fmt.Errorf("%s: %w", c.name, err))
				return
			}
		}
	})
}

// once runs it until it dies. How it dies is of no interest.
func (c *child) once() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, c.verb, c.url)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.set(cmd, in)
	if c.started != nil {
		c.started(in)
	}
	readIDs(out, c.reported) // ends with the process, and not before all is read
	c.set(nil, nil)
	_ = cmd.Wait()
	return nil
}

func (c *child) set(cmd *exec.Cmd, in io.Closer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cmd, c.in = cmd, in
	if c.ending {
		c.stop()
	}
}

// stop asks it to stop. c.mu is held.
func (c *child) stop() {
	if c.cmd != nil {
		_ = c.in.Close()
		_ = c.cmd.Process.Signal(syscall.SIGTERM)
	}
}

func (c *child) isEnding() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending
}

// signal sends s if it runs.
func (c *child) signal(s os.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd != nil {
		_ = c.cmd.Process.Signal(s)
	}
}

// end asks it to end, and waits for it.
func (c *child) end() {
	c.mu.Lock()
	c.ending = true
	c.stop()
	c.mu.Unlock()
	c.over.Wait()
}

// memory is how much of it is in memory now, in MiB; 0 while there is none.
func (c *child) memory() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd == nil {
		return 0
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	_, after, _ := bytes.Cut(status, []byte("VmRSS:"))
	kib, _ := strconv.Atoi(string(bytes.TrimSpace(after[:max(0, bytes.Index(after, []byte("kB")))])))
	return kib >> 10
}
