package cache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"
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

// startMemcached starts a Memcached, with more options.
func startMemcached(t testing.TB, options ...string) *serverProcess {
	port, address := freePort(t)
	return startServer(t, address, append([]string{"memcached", "-l", "127.0.0.1", "-p", port, "-u", "nobody", "-m", "64"}, options...)...)
}

// startSentinel starts a Redis, a replica that has caught up with it, and a
// sentinel that promotes the replica when the other is gone.
func startSentinel(t testing.TB) (url string, master, replica *serverProcess) {
	master = startRedis(t)
	masterPort := strings.TrimPrefix(master.address, "127.0.0.1:")
	replica = startRedis(t, "--replicaof", "127.0.0.1 "+masterPort, "--repl-diskless-sync-delay", "0")
	port, address := freePort(t)
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("port %s\nbind 127.0.0.1\nsentinel monitor test 127.0.0.1 %s 1\nsentinel down-after-milliseconds test 500\nsentinel failover-timeout test 3000\n", port, masterPort)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	startServer(t, address, "redis-server", file, "--sentinel")
	told(t, replica.address, "the replica has caught up", "master_link_status:up", "INFO", "replication")
	told(t, address, "the sentinel knows the replica", "slaves=1", "INFO", "sentinel")
	return "redis+sentinel://" + address + "?master_name=test", master, replica
}

// startCluster starts a cluster of three Redis servers, each with a third of
// the slots.
func startCluster(t testing.TB) (url string, nodes []*serverProcess) {
	var addresses []string
	for i := range 3 {
		n := startRedis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no")
		nodes, addresses = append(nodes, n), append(addresses, n.address)
		c := redis.NewClient(&redis.Options{Addr: n.address})
		defer c.Close()
		if err := c.ClusterAddSlotsRange(context.Background(), i*16384/3, (i+1)*16384/3-1).Err(); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			host, port, _ := net.SplitHostPort(nodes[0].address)
			if err := c.ClusterMeet(context.Background(), host, port).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, n := range nodes { // each with a way to each slot: without full coverage, a node is content with its own
		told(t, n.address, "the cluster is complete", "cluster_slots_ok:16384", "CLUSTER", "INFO")
		told(t, n.address, "the cluster is ready", "cluster_state:ok", "CLUSTER", "INFO")
	}
	return "redis+cluster://" + strings.Join(addresses, ","), nodes
}

// told waits until a Redis answers a command with text that contains want.
func told(t testing.TB, address, what, want string, command ...any) {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: address})
	defer c.Close()
	eventually(t, what, func() bool {
		answer, err := c.Do(context.Background(), command...).Text()
		return err == nil && strings.Contains(answer, want)
	})
}

// shared are servers that all tests of the package use, and change nothing
// about but their own keys. They are started by the first one that needs them.
var shared struct {
	sync.Mutex
	urls    map[string]string
	cleanup []func()
}

// sharedTB starts servers for longer than a test.
type sharedTB struct{ testing.TB }

func (sharedTB) Cleanup(fn func()) { shared.cleanup = append(shared.cleanup, fn) }
func (sharedTB) TempDir() string {
	dir, err := os.MkdirTemp("", "rabbet-cache-test")
	if err != nil {
		panic(err)
	}
	shared.cleanup = append(shared.cleanup, func() { os.RemoveAll(dir) })
	return dir
}
func (sharedTB) Failed() bool { return false }

func sharedURL(t *testing.T, name string, start func(testing.TB) string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs servers")
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.urls == nil {
		shared.urls = map[string]string{}
	}
	if shared.urls[name] == "" {
		shared.urls[name] = start(sharedTB{t})
	}
	return shared.urls[name]
}

func stopShared() {
	for _, end := range slices.Backward(shared.cleanup) {
		end()
	}
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
		conn, err := net.DialTimeout("tcp", s.address, time.Second)
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

// hang makes it accept connections and answer nothing, until resume. On a busy
// machine its threads run on for a while: it waits for the last of them.
func (s *serverProcess) hang() {
	s.signal(syscall.SIGSTOP)
	if err := unix.Waitid(unix.P_PID, s.process.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		s.t.Errorf("wait for %s to stop: %v", s.command[0], err)
	}
}

func (s *serverProcess) resume() { s.signal(syscall.SIGCONT) }

func (s *serverProcess) signal(signal syscall.Signal) {
	if err := s.process.Signal(signal); err != nil {
		s.t.Errorf("%v to %s: %v", signal, s.command[0], err)
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
