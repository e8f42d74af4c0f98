package brokertest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// registers are the values that the functions of a history read and write. They
// are served on a socket, because they must outlive the workers. A request is one
// line of words, and so is the reply: see do.
type registers struct {
	mu     sync.Mutex
	values map[string]string // by name
	begun  map[string][]run  // by the value that a run will write
}

// serve answers workers until l is closed and all of them have disconnected.
func (r *registers) serve(l net.Listener) {
	var workers sync.WaitGroup
	defer workers.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		workers.Go(func() {
			defer conn.Close()
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				if _, err := fmt.Fprintln(conn, r.do(strings.Fields(lines.Text()))); err != nil {
					return
				}
			}
		})
	}
}

// A run is one run of a function that writes.
type run struct {
	began   time.Time
	attempt int
}

// do handles "begin VALUE ATTEMPT", "write NAME VALUE" and "read NAME".
func (r *registers) do(words []string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case len(words) == 3 && words[0] == "begin":
		attempt, _ := strconv.Atoi(words[2])
		r.begun[words[1]] = append(r.begun[words[1]], run{time.Now(), attempt})
	case len(words) == 3 && words[0] == "write":
		r.values[words[1]] = words[2]
	case len(words) == 2 && words[0] == "read":
		return r.values[words[1]]
	}
	return ""
}

// A registerClient is the connection of a worker to the registers.
type registerClient struct {
	mu    sync.Mutex
	conn  net.Conn
	lines *bufio.Scanner
}

func (c *registerClient) ask(words ...string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := fmt.Fprintln(c.conn, strings.Join(words, " ")); err != nil {
		return "", err
	}
	if !c.lines.Scan() {
		return "", errors.Join(errors.New("the connection to the registers is lost"), c.lines.Err())
	}
	return c.lines.Text(), nil
}

type readRegister struct {
	Name string `json:"name"`
}

func (readRegister) RoutingKey() string { return "register.read" }

type writeRegister struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (writeRegister) RoutingKey() string { return "register.write" }

// replaceRegister is writeRegister for a function that is redelivered.
type replaceRegister writeRegister

func (replaceRegister) RoutingKey() string { return "register.replace" }

// RegisterFunctions returns the functions that a worker of RunHistory must host.
// socket is the argument of History.Workers. The caller must call done when it no
// longer hosts them.
func RegisterFunctions(socket string) (fns []contract.Function, done func() error, err error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the registers: %w", err)
	}
	c := &registerClient{conn: conn, lines: bufio.NewScanner(conn)}
	var set faas.Set[registerClient]
	faas.OnRequest(&set, "read-register", func(_ context.Context, c *registerClient, in readRegister) (string, error) {
		return c.ask("read", in.Name)
	}, faas.HTTP("GET /registers/{name}"))
	faas.OnRequest(&set, "write-register", func(ctx context.Context, c *registerClient, in writeRegister) (struct{}, error) {
		return struct{}{}, c.write(ctx, in)
	}, faas.HTTP("PUT /registers/{name}"))
	faas.OnRequest(&set, "replace-register", func(ctx context.Context, c *registerClient, in replaceRegister) (struct{}, error) {
		return struct{}{}, c.write(ctx, writeRegister(in))
	}, faas.Idempotent())
	fns, err = set.With(c)
	return fns, conn.Close, err
}

// write sets a register. In one of ten cases it waits up to 3 ms first.
func (c *registerClient) write(ctx context.Context, in writeRegister) error {
	if _, err := c.ask("begin", in.Value, strconv.Itoa(contract.MetaOf(ctx).Attempt)); err != nil {
		return err
	}
	if rand.IntN(10) == 0 {
		select {
		case <-time.After(time.Duration(rand.IntN(3000)) * time.Microsecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	_, err := c.ask("write", in.Name, in.Value)
	return err
}
