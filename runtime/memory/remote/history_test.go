package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/brokertest"
)

// workerEnv makes this test binary a worker of a history. Its value has the path of
// the shared broker and the path of the registers.
const workerEnv = "RABBET_TEST_WORKER"

// serveHistory hosts the functions of a history until ctx is done or the connection
// is lost.
func serveHistory(ctx context.Context, r *Broker, registers string) error {
	fns, done, err := brokertest.RegisterFunctions(registers)
	if err != nil {
		return err
	}
	return errors.Join(r.Serve(ctx, fns), done())
}

// runAsWorker does not return if workerEnv says that this process is a worker.
func runAsWorker() {
	var broker, registers string
	if n, _ := fmt.Sscan(os.Getenv(workerEnv), &broker, &registers); n != 2 {
		return
	}
	go func() { // ends the process when the process that started it has ended
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	r, err := Dial(broker, Config{})
	if err == nil {
		err = serveHistory(context.Background(), r, registers)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// Worker processes are killed and paused, and connections closed, while clients
// write and read.
func TestHistoryOfCalls(t *testing.T) {
	b, path := shared(t)
	brokertest.RunHistory(t, brokertest.History{
		Broker: func(*testing.T) brokertest.Broker { return b },
		Workers: func(ctx context.Context, registers string) {
			var workers sync.WaitGroup
			for range 2 {
				workers.Go(func() { disturbProcess(ctx, t, path, registers) })
			}
			workers.Go(func() { disturbConnection(ctx, t, path, registers) })
			workers.Wait()
		},
	})
}

// pause waits for 0.5 d to 1.5 d, and reports whether ctx is not done yet.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d/2 + rand.N(d)):
		return true
	}
}

// disturbProcess runs a worker process until ctx is done. It pauses the process, or
// kills it and starts another.
func disturbProcess(ctx context.Context, t *testing.T, broker, registers string) {
	start := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), workerEnv+"="+broker+" "+registers)
		if _, err := cmd.StdinPipe(); err != nil {
			t.Error(err)
		}
		if err := cmd.Start(); err != nil {
			t.Error(err)
		}
		return cmd
	}
	stop := func(cmd *exec.Cmd) {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
	cmd := start()
	defer func() { stop(cmd) }()
	for pause(ctx, 3*time.Second) {
		if rand.IntN(4) == 0 {
			_ = cmd.Process.Signal(syscall.SIGSTOP)
			pause(ctx, 2*time.Second)
			_ = cmd.Process.Signal(syscall.SIGCONT)
			continue
		}
		stop(cmd)
		cmd = start()
	}
}

// disturbConnection hosts the functions over a connection, which it closes and
// replaces until ctx is done.
func disturbConnection(ctx context.Context, t *testing.T, broker, registers string) {
	for ctx.Err() == nil {
		r, err := Dial(broker, Config{})
		if err != nil {
			t.Error(err)
			return
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = serveHistory(ctx, r, registers) // fails: the connection is closed
		}()
		pause(ctx, 2*time.Second)
		r.conn.Close()
		<-served
		_ = r.Close()
	}
}
