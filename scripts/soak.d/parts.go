package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/rabbit"
)

const (
	namespace    = "soak"
	function     = "soak"
	key          = "soak.happened"
	publishers   = 64   // publishes at once
	concurrency  = 64   // runs at once, in each worker
	poisonEvery  = 1000 // one of so many events can never be processed
	stumbleEvery = 100  // one of so many fails the first time
)

// poison and stumbles say what becomes of event id.
func poison(id uint32) bool   { return id%poisonEvery == poisonEvery-1 }
func stumbles(id uint32) bool { return id%stumbleEvery == stumbleEvery/2 }

// ids travel between the processes as 4 bytes each.
func readIDs(from io.Reader, each func(id uint32)) {
	in := bufio.NewReader(from)
	var b [4]byte
	for {
		if _, err := io.ReadFull(in, b[:]); err != nil {
			return
		}
		each(binary.LittleEndian.Uint32(b[:]))
	}
}

// report tells the parent of id. Once it has returned the parent will hear of
// it, whatever happens to this process: a write to a pipe that is this short is atomic.
func report(id uint32) error {
	_, err := os.Stdout.Write(binary.LittleEndian.AppendUint32(nil, id))
	return err
}

// publish publishes the events that stdin names, each until the broker takes
// it, and reports those that it took.
func publish(ctx context.Context, url string) error {
	b, err := rabbit.Open(rabbit.Config{URL: url, Namespace: namespace})
	if err != nil {
		return err
	}
	defer b.Close()
	todo := make(chan uint32)
	var g sync.WaitGroup
	for range publishers {
		g.Go(func() {
			for id := range todo {
				publishOne(ctx, b, id)
			}
		})
	}
	readIDs(os.Stdin, func(id uint32) {
		select {
		case todo <- id:
		case <-ctx.Done():
		}
	})
	close(todo)
	g.Wait()
	return nil
}

func publishOne(ctx context.Context, b *rabbit.Broker, id uint32) {
	e := contract.Event{Key: key, ID: strconv.FormatUint(uint64(id), 10), Body: fmt.Appendf(nil, `{"id":%d}`, id)}
	for ctx.Err() == nil {
		within, cancel := context.WithTimeout(ctx, 30*time.Second)
		err := b.Publish(within, e)
		cancel()
		if err == nil {
			_ = report(id) // without a parent there is no receiver
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// work hosts the function until it is told to stop.
func work(ctx context.Context, url string) error {
	b, err := rabbit.Open(rabbit.Config{URL: url, Namespace: namespace})
	if err != nil {
		return err
	}
	defer b.Close()
	return b.Serve(ctx, []contract.Function{{
		Descriptor: contract.Descriptor{
			Name: function, Kind: contract.KindEvent, Keys: []string{key}, Version: "1",
			Timeout: time.Minute, Concurrency: concurrency, Retry: contract.Retry{First: 100 * time.Millisecond},
		},
		Handle: process,
	}})
}

func process(_ context.Context, e *contract.Event) ([]byte, error) {
	n, err := strconv.ParseUint(e.ID, 10, 32)
	if err != nil {
		return nil, faas.Permanent("no id: %w", err)
	}
	id := uint32(n)
	switch {
	case poison(id):
		return nil, faas.Permanent("event %d is poison", id)
	case stumbles(id) && e.Attempt == 1:
		return nil, errors.New("it stumbles the first time")
	}
	return nil, report(id)
}
