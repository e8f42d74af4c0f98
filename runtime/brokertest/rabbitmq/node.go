// Package rabbitmq runs private RabbitMQ nodes that a test, or a load, may
// kill, restart and cluster as it likes. Which RabbitMQ that is, and where it is
// installed, it leaves to the command that starts one
// (scripts/stack.d/rabbitmq-node); what is done with a node, to its caller.
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

// Config says which node to start. Dir is required.
type Config struct {
	Command  string // what starts a node: scripts/stack.d/rabbitmq-node; $RABBET_TEST_RABBITMQ
	Dir      string // of its data; its last part is the node's name, and no other node of a cluster has it
	Settings string // lines of rabbitmq.conf on top of those of infra/rabbitmq
	Peer     *Node  // a running member of the cluster to join; nil: it stands alone
}

// Node is a RabbitMQ server of the caller's own. Its methods are for one
// goroutine at a time.
type Node struct {
	cfg    Config
	ports  [4]int // AMQP, management, distribution, epmd
	server *process
	epmd   *process // nil when a peer has it
}

// Start starts a node and waits until clients can use it, which takes about
// five seconds of CPU time. Close it.
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

// prepare writes the folder, chooses the ports and starts the name server.
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
		return fmt.Errorf("the cookie of the peer: %w", err)
	}
	return os.WriteFile(filepath.Join(n.cfg.Dir, ".erlang.cookie"), cookie, 0o400)
}

// Name is what the node is called in its cluster.
func (n *Node) Name() string { return filepath.Base(n.cfg.Dir) + "@localhost" }

// URL is where AMQP clients reach the node; its user may do anything.
func (n *Node) URL() string { return fmt.Sprintf("amqp://rabbet:rabbet@127.0.0.1:%d/", n.ports[0]) }

// Management is the base URL of the node's management API, with user and password.
func (n *Node) Management() string {
	return fmt.Sprintf("http://rabbet:rabbet@127.0.0.1:%d", n.ports[1])
}

// Restart starts the node on the data that it had when it was killed or
// stopped, and waits until clients can use it.
func (n *Node) Restart(ctx context.Context) error {
	if n.server.lives() {
		return fmt.Errorf("RabbitMQ node %s runs already: kill or stop it first", n.Name())
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

// await waits until the node serves clients.
func (n *Node) await(ctx context.Context) error {
	for {
		err := n.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-n.server.over:
			return fmt.Errorf("RabbitMQ node %s ended before it was ready: its log ends with\n%s", n.Name(), n.LogTail())
		case <-ctx.Done():
			return fmt.Errorf("RabbitMQ node %s is not ready (%w): its log ends with\n%s", n.Name(), err, n.LogTail())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// ready asks for the virtual hosts: they are the last to come up.
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

// Kill ends the node as kill -9 does, or the loss of its machine.
func (n *Node) Kill() { n.server.kill() }

// Stop asks the node to stop and waits for it.
func (n *Node) Stop(ctx context.Context) error {
	if err := n.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-n.server.over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("RabbitMQ node %s does not stop: %w", n.Name(), ctx.Err())
	}
}

// Signal sends s to the server; SIGSTOP makes it mute and SIGCONT ends that.
func (n *Node) Signal(s syscall.Signal) error {
	if err := syscall.Kill(n.server.pid, s); err != nil {
		return fmt.Errorf("signal %v to RabbitMQ node %s: %w", s, n.Name(), err)
	}
	return nil
}

// Ctl runs rabbitmqctl on the node and returns what it prints.
func (n *Node) Ctl(ctx context.Context, arguments ...string) (string, error) {
	out, err := exec.CommandContext(ctx, n.cfg.Command, append([]string{"ctl", n.cfg.Dir}, arguments...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("rabbitmqctl %s: %w: %s", strings.Join(arguments, " "), err, out)
	}
	return string(out), nil
}

// Remember makes the node write down which queues it has. For quorum queues it
// does so half a second after the last was declared; one that it has not written
// down when it is killed (3.10.8) is empty afterwards, and has no leader.
func (n *Node) Remember(ctx context.Context) error {
	_, err := n.Ctl(ctx, "eval", "catch mnesia:sync_log(), catch dets:sync(ra_directory_reverse), catch dets:sync(ra_log_meta).")
	return err
}

// Close kills the node, and the name server that came with it: close peers
// before the node that they joined. The folder stays.
func (n *Node) Close() {
	n.server.kill()
	n.epmd.kill()
}

// LogTail is the end of the node's log.
func (n *Node) LogTail() string {
	log, err := os.ReadFile(n.log())
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-3000):])
}

func (n *Node) log() string { return filepath.Join(n.cfg.Dir, "node.log") }
