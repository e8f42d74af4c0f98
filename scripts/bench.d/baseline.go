package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"
)

const baselineQueue = "baseline.echo"

// baselineWorker answers calls: transient messages, auto-ack, one goroutine.
func baselineWorker(ctx context.Context) error {
	ch, closeAll, err := channel(os.Getenv("RABBET_BROKER_URL"))
	if err != nil {
		return err
	}
	defer closeAll()
	if _, err := ch.QueueDeclare(baselineQueue, false, true, false, false, amqp.Table{"x-queue-type": "classic"}); err != nil {
		return err
	}
	calls, err := ch.Consume(baselineQueue, "", true, false, false, false, nil)
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case call, ok := <-calls:
			if !ok {
				return errors.New("the connection is gone")
			}
			if err := ch.PublishWithContext(ctx, "", call.ReplyTo, false, false, amqp.Publishing{
				ContentType: "application/json", CorrelationId: call.CorrelationId, Body: call.Body,
			}); err != nil {
				return err
			}
		}
	}
}

// baselineFront turns each request into one RPC over an exclusive reply queue.
func baselineFront(ctx context.Context) error {
	ch, closeAll, err := channel(os.Getenv("RABBET_BROKER_URL"))
	if err != nil {
		return err
	}
	defer closeAll()
	queue, err := ch.QueueDeclare("", false, true, true, false, amqp.Table{"x-queue-type": "classic"})
	if err != nil {
		return err
	}
	replies, err := ch.Consume(queue.Name, "", true, true, false, false, nil)
	if err != nil {
		return err
	}
	var (
		mu      sync.Mutex
		last    uint64
		waiting = map[string]chan []byte{}
	)
	go func() { // ends with the connection
		for reply := range replies {
			mu.Lock()
			caller := waiting[reply.CorrelationId]
			delete(waiting, reply.CorrelationId)
			mu.Unlock()
			if caller != nil {
				caller <- reply.Body
			}
		}
	}()
	mux := http.NewServeMux()
	mux.HandleFunc("/echo/{id}", func(w http.ResponseWriter, r *http.Request) {
		body, err := json.Marshal(echo{ID: r.PathValue("id")})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer := make(chan []byte, 1)
		mu.Lock()
		last++
		id := strconv.FormatUint(last, 10)
		waiting[id] = answer
		mu.Unlock()
		if err := ch.PublishWithContext(r.Context(), "", baselineQueue, false, false, amqp.Publishing{
			ContentType: "application/json", CorrelationId: id, ReplyTo: queue.Name, Body: body,
		}); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		select {
		case body := <-answer:
			w.Header().Set("Content-Type", "application/json")
			w.Write(body)
		case <-r.Context().Done():
		}
	})
	return serve(ctx, mux)
}

// baselineCache answers each request with one GET on the store.
func baselineCache(ctx context.Context) error {
	store, err := url.Parse(os.Getenv("RABBET_CACHE_URL"))
	if err != nil {
		return err
	}
	value, err := json.Marshal(echo{ID: "42"})
	if err != nil {
		return err
	}
	var read func(context.Context, string) ([]byte, error)
	switch store.Scheme {
	case "redis":
		options, err := redis.ParseURL(store.String())
		if err != nil {
			return err
		}
		client := redis.NewClient(options)
		defer client.Close()
		if err := client.Set(ctx, "baseline:42", value, 0).Err(); err != nil {
			return err
		}
		read = func(ctx context.Context, key string) ([]byte, error) { return client.Get(ctx, key).Bytes() }
	case "memcached":
		client := memcache.New(store.Host)
		client.MaxIdleConns = 256
		defer client.Close()
		if err := client.Set(&memcache.Item{Key: "baseline:42", Value: value}); err != nil {
			return err
		}
		read = func(_ context.Context, key string) ([]byte, error) {
			item, err := client.Get(key)
			if err != nil {
				return nil, err
			}
			return item.Value, nil
		}
	default:
		return fmt.Errorf("no baseline for %s://", store.Scheme)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /cached/{id}", func(w http.ResponseWriter, r *http.Request) {
		body, err := read(r.Context(), "baseline:"+r.PathValue("id"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(body)
	})
	return serve(ctx, mux)
}

// serve serves h at RABBET_HTTP_ADDR until ctx is done.
func serve(ctx context.Context, h http.Handler) error {
	server := &http.Server{Addr: os.Getenv("RABBET_HTTP_ADDR"), Handler: h, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// channel opens a connection with one channel.
func channel(url string) (*amqp.Channel, func(), error) {
	connection, err := amqp.Dial(url)
	if err != nil {
		return nil, nil, err
	}
	ch, err := connection.Channel()
	if err != nil {
		connection.Close()
		return nil, nil, err
	}
	return ch, func() { connection.Close() }, nil
}
