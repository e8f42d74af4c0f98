//go:build linux

// Package servertest starts the servers that tests of the results cache need:
// Redis and Memcached processes that can be killed and stopped, sentinels,
// clusters, and listeners that misbehave. They run until the test ends.
package servertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"
)

// A Process is a server that one test uses. It can be killed, stopped and started
// again at the same address.
type Process struct {
	t       testing.TB
	Address string // host:port
	command []string
	log     string
	process *os.Process
	ended   chan struct{} // closed when it has ended
}

// StartRedis starts a Redis that stores nothing on disk. options are arguments.
func StartRedis(t testing.TB, options ...string) *Process {
	port, address := freePort(t)
	return startServer(t, address, append([]string{
		"redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir(),
	}, options...)...)
}

// StartMemcached starts a Memcached. options are arguments.
func StartMemcached(t testing.TB, options ...string) *Process {
	port, address := freePort(t)
	return startServer(t, address, append([]string{"memcached", "-l", "127.0.0.1", "-p", port, "-u", "nobody", "-m", "64"}, options...)...)
}

// StartSentinel starts a Redis, a replica that has caught up with it, and a
// sentinel that promotes the replica when the other is gone.
func StartSentinel(t testing.TB) (url string, master, replica *Process) {
	master = StartRedis(t)
	masterPort := strings.TrimPrefix(master.Address, "127.0.0.1:")
	replica = StartRedis(t, "--replicaof", "127.0.0.1 "+masterPort, "--repl-diskless-sync-delay", "0")
	port, address := freePort(t)
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("port %s\nbind 127.0.0.1\nsentinel monitor test 127.0.0.1 %s 1\nsentinel down-after-milliseconds test 500\nsentinel failover-timeout test 3000\n", port, masterPort)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	startServer(t, address, "redis-server", file, "--sentinel")
	awaitReply(t, replica.Address, "the replica has caught up", "master_link_status:up", "INFO", "replication")
	awaitReply(t, address, "the sentinel knows the replica", "slaves=1", "INFO", "sentinel")
	return "redis+sentinel://" + address + "?master_name=test", master, replica
}

// StartCluster starts a cluster of three Redis servers, each with a third of
// the slots.
func StartCluster(t testing.TB) (url string, nodes []*Process) {
	var addresses []string
	for i := range 3 {
		n := StartRedis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no")
		nodes, addresses = append(nodes, n), append(addresses, n.Address)
		c := redis.NewClient(&redis.Options{Addr: n.Address})
		defer c.Close()
		if err := c.ClusterAddSlotsRange(context.Background(), i*16384/3, (i+1)*16384/3-1).Err(); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			host, port, _ := net.SplitHostPort(nodes[0].Address)
			if err := c.ClusterMeet(context.Background(), host, port).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, n := range nodes { // all slots, because a node without full coverage is ready with its own
		awaitReply(t, n.Address, "the cluster is complete", "cluster_slots_ok:16384", "CLUSTER", "INFO")
		awaitReply(t, n.Address, "the cluster is ready", "cluster_state:ok", "CLUSTER", "INFO")
	}
	return "redis+cluster://" + strings.Join(addresses, ","), nodes
}

// awaitReply waits until a Redis answers command with text that contains want.
func awaitReply(t testing.TB, address, what, want string, command ...any) {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: address})
	defer c.Close()
	Eventually(t, what, func() bool {
		answer, err := c.Do(context.Background(), command...).Text()
		return err == nil && strings.Contains(answer, want)
	})
}

// startServer starts a server that listens at address, until t ends.
func startServer(t testing.TB, address string, command ...string) *Process {
	t.Helper()
	if testing.Short() {
		t.Skip("needs " + command[0])
	}
	s := &Process{t: t, Address: address, command: command, log: filepath.Join(t.TempDir(), "log")}
	t.Cleanup(func() {
		s.Kill()
		if log, err := os.ReadFile(s.log); err == nil && t.Failed() {
			t.Logf("%s wrote:\n%s", command[0], log[max(0, len(log)-2000):])
		}
	})
	s.Start()
	return s
}

// Start starts the server, and returns when it answers.
func (s *Process) Start() {
	s.t.Helper()
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(s.command[0], s.command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ended, started := make(chan struct{}), make(chan error)
	go func() { // ends with the process
		runtime.LockOSThread() // Pdeathsig comes when the thread that started it ends
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		s.t.Fatalf("start %s: %v: run scripts/test, which installs it", s.command[0], err)
	}
	s.process, s.ended = cmd.Process, ended
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", s.Address, time.Second)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-ended:
			s.t.Fatalf("%s ended by itself", s.command[0])
		default:
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s does not listen at %s after 30 s", s.command[0], s.Address)
		}
	}
}

// Hang stops the server until Resume: it accepts connections and does not answer.
// Hang waits until all threads of the server have stopped.
func (s *Process) Hang() {
	s.signal(syscall.SIGSTOP)
	if err := unix.Waitid(unix.P_PID, s.process.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		s.t.Errorf("wait for %s to stop: %v", s.command[0], err)
	}
}

// Resume lets the server answer again.
func (s *Process) Resume() { s.signal(syscall.SIGCONT) }

func (s *Process) signal(signal syscall.Signal) {
	if err := s.process.Signal(signal); err != nil {
		s.t.Errorf("%v to %s: %v", signal, s.command[0], err)
	}
}

// Kill ends the server at once. It loses what it has stored.
func (s *Process) Kill() {
	if s.process != nil {
		_ = s.process.Kill()
		<-s.ended
		s.process = nil
	}
}

// freePort returns a port on which nothing listens. It is below the ports that the
// system assigns, so that nothing takes it while the server is down.
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
