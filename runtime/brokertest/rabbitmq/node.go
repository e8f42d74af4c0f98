// Package rabbitmq runs RabbitMQ nodes for tests, which may kill, restart and
// cluster them. It does not know which version of RabbitMQ is installed, nor where:
// a command starts it (scripts/stack.d/rabbitmq-node).
package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Config says which node to start. Dir is required, except for New and NewCluster.
type Config struct {
	Command  string // path of scripts/stack.d/rabbitmq-node; default: $RABBET_TEST_RABBITMQ
	Dir      string // folder for its data; the last element is the name of the node, which must be unique in a cluster
	Settings string // lines of rabbitmq.conf, in addition to those of infra/rabbitmq
	Peer     *Node  // a running node of the cluster to join; nil: the node starts a cluster of its own
}

// A Node is a RabbitMQ server. Create it with Start, New or NewCluster. Its methods
// are not safe for concurrent use.
type Node struct {
	cfg    Config
	ports  [4]int // AMQP, management, distribution, epmd
	server *process
	epmd   *process // name server; nil if a peer has it
}

// Start starts a node and waits until clients can use it, which takes about 5 s of
// CPU time. Close the node.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	cfg.Command = cmp.Or(cfg.Command, os.Getenv("RABBET_TEST_RABBITMQ"))
	if cfg.Command == "" {
		return nil, errors.New("RABBET_TEST_RABBITMQ is not set: set it to scripts/stack.d/rabbitmq-node, or run scripts/test, which does")
	}
	n := &Node{cfg: cfg}
	if err := n.prepare(); err != nil {
		return nil, err
	}
	if err := n.Restart(ctx); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// prepare writes the configuration, chooses the ports and starts the name server.
func (n *Node) prepare() error {
	if err := os.MkdirAll(filepath.Join(n.cfg.Dir, "conf.d"), 0o755); err != nil {
		return err
	}
	settings := n.cfg.Settings
	if n.cfg.Peer != nil {
		settings += "\ncluster_formation.classic_config.nodes.1 = " + n.cfg.Peer.Name() + "\n"
	}
	if err := os.WriteFile(filepath.Join(n.cfg.Dir, "conf.d", "20-settings.conf"), []byte(settings), 0o644); err != nil {
		return err
	}
	var err error
	if n.ports, err = freePorts(); err != nil || n.cfg.Peer == nil {
		if err == nil {
			n.epmd, err = start(filepath.Join(n.cfg.Dir, "epmd.log"), n.cfg.Command, "epmd", strconv.Itoa(n.ports[3]))
		}
		return err
	}
	n.ports[3] = n.cfg.Peer.ports[3]
	cookie, err := os.ReadFile(filepath.Join(n.cfg.Peer.cfg.Dir, ".erlang.cookie"))
	if err != nil {
		return fmt.Errorf("read the cookie of the peer: %w", err)
	}
	return os.WriteFile(filepath.Join(n.cfg.Dir, ".erlang.cookie"), cookie, 0o400)
}

// Name returns the name of the node in its cluster.
func (n *Node) Name() string { return filepath.Base(n.cfg.Dir) + "@localhost" }

// URL returns the AMQP URL of the node. Its user is an administrator.
func (n *Node) URL() string { return fmt.Sprintf("amqp://rabbet:rabbet@127.0.0.1:%d/", n.ports[0]) }

// Management returns the base URL of the management API, with user and password.
func (n *Node) Management() string {
	return fmt.Sprintf("http://rabbet:rabbet@127.0.0.1:%d", n.ports[1])
}

// Restart starts a node that was killed or stopped, with the data that it had, and
// waits until clients can use it.
func (n *Node) Restart(ctx context.Context) error {
	if n.server.running() {
		return fmt.Errorf("RabbitMQ node %s is already running: kill or stop it first", n.Name())
	}
	arguments := []string{"start", n.cfg.Dir}
	for _, port := range n.ports {
		arguments = append(arguments, strconv.Itoa(port))
	}
	var err error
	if n.server, err = start(n.log(), n.cfg.Command, arguments...); err != nil {
		return err
	}
	return n.await(ctx)
}

// await waits until clients can use the node.
func (n *Node) await(ctx context.Context) error {
	for {
		err := n.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-n.server.ended:
			return fmt.Errorf("RabbitMQ node %s ended before it was ready: its log ends with\n%s", n.Name(), n.LogTail())
		case <-ctx.Done():
			return fmt.Errorf("RabbitMQ node %s is not ready (%w): its log ends with\n%s", n.Name(), err, n.LogTail())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// ready checks the virtual hosts, which start last, and the AMQP port.
func (n *Node) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, n.Management()+"/api/health/checks/virtual-hosts", nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", r.URL.Path, response.Status)
	}
	return dial(n.ports[0])
}

// Kill ends the node like kill -9, and waits until it has ended.
func (n *Node) Kill() { n.server.kill() }

// Stop stops the node cleanly, and waits until it has ended.
func (n *Node) Stop(ctx context.Context) error {
	if err := n.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-n.server.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("RabbitMQ node %s did not stop: %w", n.Name(), ctx.Err())
	}
}

// Signal sends s to the node: with SIGSTOP it does not answer until SIGCONT.
func (n *Node) Signal(s syscall.Signal) error {
	if err := syscall.Kill(n.server.pid, s); err != nil {
		return fmt.Errorf("signal %v to RabbitMQ node %s: %w", s, n.Name(), err)
	}
	return nil
}

// Ctl runs rabbitmqctl for the node and returns its output. The error includes the
// output.
func (n *Node) Ctl(ctx context.Context, arguments ...string) (string, error) {
	out, err := exec.CommandContext(ctx, n.cfg.Command, append([]string{"ctl", n.cfg.Dir}, arguments...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("rabbitmqctl %s: %w: %s", strings.Join(arguments, " "), err, out)
	}
	return string(out), nil
}

// Remember makes the node write its table of queues to disk. By itself it does so
// half a second after the last quorum queue was declared. A quorum queue that is
// not in the table when the node is killed has no leader and no messages after the
// restart (seen with 3.10.8).
func (n *Node) Remember(ctx context.Context) error {
	_, err := n.Ctl(ctx, "eval", "catch mnesia:sync_log(), catch dets:sync(ra_directory_reverse), catch dets:sync(ra_log_meta).")
	return err
}

// Close kills the node and its name server. Close the nodes that have joined it
// first. The folder stays.
func (n *Node) Close() {
	n.server.kill()
	n.epmd.kill()
}

// LogTail returns the last 3,000 bytes of the log, or why it cannot be read.
func (n *Node) LogTail() string {
	log, err := os.ReadFile(n.log())
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-3000):])
}

func (n *Node) log() string { return filepath.Join(n.cfg.Dir, "node.log") }
