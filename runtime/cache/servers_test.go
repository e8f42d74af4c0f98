package cache

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// serverProcess is a server of a test's own, which may be killed, hung and
// started again at the same address.
type serverProcess struct {
	t       testing.TB
	address string
	command []string
	log     string
	process *os.Process
	over    chan struct{} // closed when it has ended
}

// startRedis starts a Redis that keeps nothing on disk, with more options.
func startRedis(t testing.TB, options ...string) *serverProcess {
	port, address := freePort(t)
	return startServer(t, address, append([]string{
		"redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir(),
	}, options...)...)
}

func startMemcached(t testing.TB) *serverProcess {
	port, address := freePort(t)
	return startServer(t, address, "memcached", "-l", "127.0.0.1", "-p", port, "-u", "nobody", "-m", "64")
}

// startServer starts a server that listens at address until t ends.
func startServer(t testing.TB, address string, command ...string) *serverProcess {
	t.Helper()
	if testing.Short() {
		t.Skip("needs " + command[0])
	}
	s := &serverProcess{t: t, address: address, command: command, log: filepath.Join(t.TempDir(), "log")}
	t.Cleanup(func() {
		s.kill()
		if log, err := os.ReadFile(s.log); err == nil && t.Failed() {
			t.Logf("%s wrote:\n%s", command[0], log[max(0, len(log)-2000):])
		}
	})
	s.start()
	return s
}

// start starts it, and returns once it answers.
func (s *serverProcess) start() {
	s.t.Helper()
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(s.command[0], s.command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	over, started := make(chan struct{}), make(chan error)
	go func() { // ends with the process
		runtime.LockOSThread() // Pdeathsig comes when the thread that started it ends
		defer runtime.UnlockOSThread()
		defer close(over)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		s.t.Fatalf("start %s: %v: run scripts/test, which installs it", s.command[0], err)
	}
	s.process, s.over = cmd.Process, over
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", s.address)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-over:
			s.t.Fatalf("%s ended by itself", s.command[0])
		default:
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s does not listen at %s after 30 s", s.command[0], s.address)
		}
	}
}

// kill ends it at once. What it kept is lost.
func (s *serverProcess) kill() {
	if s.process != nil {
		_ = s.process.Kill()
		<-s.over
		s.process = nil
	}
}

// freePort is a port on which nothing listens, below those that the system
// hands out by itself: nothing takes it while its server is down.
func freePort(t testing.TB) (port, address string) {
	t.Helper()
	for range 100 {
		address = fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(10_000))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			_, port, _ = net.SplitHostPort(address)
			return port, address
		}
	}
	t.Fatal("no free port in 100 tries")
	return "", ""
}
