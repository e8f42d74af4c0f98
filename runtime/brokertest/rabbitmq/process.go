package rabbitmq

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
)

// process is one that ends with this one at the latest. A nil process has ended.
type process struct {
	pid  int
	over chan struct{} // closed when it has ended
}

// start runs command with its output appended to log.
func start(log, command string, arguments ...string) (*process, error) {
	file, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd := exec.Command(command, arguments...)
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &process{over: make(chan struct{})}
	started := make(chan error)
	go func() { // ends with the process
		runtime.LockOSThread() // Pdeathsig comes when the thread that started it ends
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(p.over)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", command, err)
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

func (p *process) lives() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.over:
		return false
	default:
		return true
	}
}

func (p *process) kill() {
	if p.lives() {
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
		<-p.over
	}
}

// freePorts returns ports on which nothing listens. They are below those that
// the system hands out by itself, so that nothing takes one while its node is
// down.
func freePorts() (ports [4]int, err error) {
	for i := range ports {
		var l net.Listener
		for range 100 {
			if l, err = net.Listen("tcp", address(20_000+rand.IntN(10_000))); err == nil {
				break
			}
		}
		if err != nil {
			return ports, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close() // after all of them: no port is found twice
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

func address(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

func dial(port int) error {
	conn, err := net.Dial("tcp", address(port))
	if err == nil {
		err = conn.Close()
	}
	return err
}
