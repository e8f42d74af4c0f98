package dev

import (
	"fmt"
	"io"
	"os"
	"os/exec"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// A worker is a process that hosts the functions. It drains and ends when its
// standard input is closed, and so also when this process dies.
type worker struct {
	id    string // as it announces itself
	stdin io.Closer
	done  chan struct{} // closed when it has ended
	err   error         // how it ended; valid after done
}

// startWorker starts binary as a worker of this process.
func startWorker(binary, mailCatcher string) (*worker, error) {
	w := &worker{id: contract.NewID(), done: make(chan struct{})}
	cmd := exec.Command(binary, "worker", "--attached", "--mail-catcher="+mailCatcher)
	cmd.Env = append(os.Environ(), config.Prefix+"PROCESS="+w.id, config.Prefix+"ADMIN_ADDR=none")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	w.stdin = stdin
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the functions: %w", err)
	}
	go func() { // ends with the process
		defer close(w.done)
		w.err = cmd.Wait()
	}()
	return w, nil
}

// stop lets the process drain, and returns when it has ended.
func (w *worker) stop(log *zap.Logger) {
	w.stdin.Close()
	<-w.done
	if w.err != nil {
		log.Warn("the process of the earlier functions failed at its end", zap.Error(w.err))
	}
}
