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

// A process ends when this process ends, or earlier. A nil process has ended.
type process struct {
	pid   int
	ended chan struct{} // closed when it has ended
}

// start starts a command, and appends its output to a log.
func start(log, command string, arguments ...string) (*process, error) {
	file, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd := exec.Command(command, arguments...)
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &process{ended: make(chan struct{})}
	started := make(chan error)
	go func() { // ends with the process
		runtime.LockOSThread() // Pdeathsig is sent when the thread that started the command ends
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", command, err)
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// kill kills p and waits until it has ended.
func (p *process) kill() {
	if p.running() {
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
		<-p.ended
	}
}

// freePorts returns ports on which nothing listens. They are below the range from
// which Linux assigns ports, so that no other process gets one while the node is
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
		defer l.Close() // at the end, so that no port is found twice
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

func address(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// dial checks that a server listens on port.
func dial(port int) error {
	conn, err := net.Dial("tcp", address(port))
	if err == nil {
		err = conn.Close()
	}
	return err
}
