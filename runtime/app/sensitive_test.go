package app_test

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/logs"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/serve"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/services"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/memory"
)

type pay struct {
	ID   string `json:"id"`
	Card string `json:"card" sensitive:"true"`
}

type reveal struct {
	ID string `json:"id"`
}

type revealed struct {
	Holders []struct {
		Secret string `json:"secret" sensitive:"true"`
	} `json:"holders"`
}

type authorized struct {
	ID    string `json:"id"`
	Token string `json:"token" header:"Authorization" sensitive:"true"`
}

type charged struct {
	Card string `json:"card" sensitive:"true"`
}

type harmless struct {
	ID string `json:"id"`
}

func (pay) RoutingKey() string        { return "pay" }
func (reveal) RoutingKey() string     { return "reveal" }
func (authorized) RoutingKey() string { return "authorized" }
func (charged) RoutingKey() string    { return "charged" }
func (harmless) RoutingKey() string   { return "harmless" }

// secretive is a set of functions that are careless with the secret: they ask
// for every cache there is, and quote it in their errors.
func secretive(secret string, retried chan<- struct{}) *faas.Set[struct{}] {
	set := &faas.Set[struct{}]{}
	policy := contract.CachePolicy{TTL: time.Hour, Tags: []string{"of:{id}"}, Negative: time.Hour, StaleIfError: time.Hour, Public: true}
	faas.OnRequest(set, "pay", func(_ context.Context, _ *struct{}, in pay) (string, error) {
		switch in.ID {
		case "missing":
			return "", faas.NotFound("no card %s", in.Card)
		case "broken":
			return "", fmt.Errorf("bank refused %+v", in)
		case "panics":
			panic(in.Card)
		}
		return "paid by " + in.Card, nil
	}, faas.HTTP("POST /payments/{id}"), policy)
	faas.OnRequest(set, "reveal", func(context.Context, *struct{}, reveal) (out revealed, err error) {
		out.Holders = append(out.Holders, struct {
			Secret string `json:"secret" sensitive:"true"`
		}{secret})
		return out, nil
	}, faas.HTTP("GET /secrets/{id}"), policy)
	faas.OnRequest(set, "authorized", func(_ context.Context, _ *struct{}, in authorized) (string, error) {
		return in.Token, nil
	}, faas.HTTP("GET /authorized/{id}"), policy)
	faas.OnEvent(set, "charge", func(_ context.Context, _ *struct{}, in charged) error {
		retried <- struct{}{}
		return errors.New("cannot charge " + in.Card)
	}, contract.Retry{Max: 2, First: time.Millisecond})
	faas.OnRequest(set, "harmless", func(_ context.Context, _ *struct{}, in harmless) (string, error) {
		return "this is harmless: " + in.ID, nil
	}, faas.HTTP("GET /harmless/{id}"), faas.Cached(time.Hour, "of:{id}"))
	return set
}

// TestNoStoreAndNoLogHoldsWhatIsSensitive makes every kind of call, then reads
// everything that the real stores hold.
func TestNoStoreAndNoLogHoldsWhatIsSensitive(t *testing.T) {
	for variable, contents := range map[string]func(*testing.T, string) map[string]string{
		"RABBET_TEST_REDIS_URL": redisContents, "RABBET_TEST_MEMCACHED_URL": memcachedContents,
	} {
		t.Run(variable, func(t *testing.T) {
			store := storeURL(t, variable)
			secret, control := rand.Text(), rand.Text()
			c := &config.Config{CacheURL: store, Namespace: "test-" + rand.Text()}
			var lines syncBuffer
			log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&lines), zap.DebugLevel))
			results, err := services.OpenCache(c, nil, "", log)
			if err != nil {
				t.Fatal(err)
			}
			defer results.Close()
			broker := memory.New(memory.Config{Log: log, Observe: logs.Invocations(log)})
			defer broker.Close()
			retried := make(chan struct{}, 2)
			fns, err := secretive(secret, retried).With(&struct{}{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			served := make(chan error, 1)
			go func() { served <- broker.Serve(ctx, fns) }()
			front := httptest.NewServer(serve.NewIngress(c, broker, results, nil, log))
			defer front.Close()
			bus := faas.NewBus(results.Broker(broker, broker.Directory()))

			for range 2 { // the second would be a hit
				for _, id := range []string{"1", "missing", "broken", "panics"} {
					ask(t, "POST", front.URL+"/payments/"+id, `{"card":"`+secret+`"}`)
					ask(t, "POST", front.URL+"/functions/pay", `{"id":"`+id+`","card":"`+secret+`"}`)
					_, _ = faas.Call[string](t.Context(), bus, pay{ID: id, Card: secret})
				}
				if got := ask(t, "GET", front.URL+"/secrets/1", ""); !strings.Contains(got, secret) {
					t.Fatalf("the caller got %s", got)
				}
				if got, err := faas.Call[revealed](t.Context(), bus, reveal{ID: "1"}); err != nil || got.Holders[0].Secret != secret {
					t.Fatalf("the caller got %v, %v", got, err)
				}
				ask(t, "GET", front.URL+"/authorized/1", "", "Authorization: Bearer "+secret)
				ask(t, "POST", front.URL+"/payments/1", `{"card":{"`+secret+`":1}}`) // does not fit
				ask(t, "POST", front.URL+"/payments/1?card="+secret, `{}`)           // nor does that belong there
			}
			if err := bus.Publish(t.Context(), charged{Card: secret}); err != nil {
				t.Fatal(err)
			}
			<-retried
			<-retried // the next thing is its dead letter
			held := contents(t, store)
			for key := range held {
				if strings.HasPrefix(key, c.Namespace+":") {
					t.Errorf("the store holds %q: something of a sensitive call", key)
				}
			}
			// The scan does find what is there: a result, and its tag.
			if got := ask(t, "GET", front.URL+"/harmless/"+control, ""); !strings.Contains(got, control) {
				t.Fatalf("the caller got %s", got)
			}
			own, found := 0, false
			held = contents(t, store)
			for key, value := range held {
				if strings.Contains(key+value, secret) {
					t.Errorf("the store holds the secret: %q = %q", key, value)
				}
				if strings.HasPrefix(key, c.Namespace+":") && !strings.HasPrefix(key, c.Namespace+":l:") { // a lease goes when it may
					own++
					found = found || strings.Contains(value, control)
				}
			}
			if own != 2 || !found {
				t.Errorf("%d keys of ours, the harmless result among them: %v; the scan misses things", own, found)
			}
			stop()
			if err := <-served; err != nil {
				t.Error(err)
			}
			for line := range strings.Lines(lines.String()) {
				if strings.Contains(line, secret) {
					t.Errorf("logged: %s", line)
				}
			}
			if n := strings.Count(lines.String(), contract.Redacted); n < 10 {
				t.Errorf("%d redacted lines: the functions did not quote the secret, so this proves nothing", n)
			}
		})
	}
}

// ask makes a request and returns the body.
func ask(t *testing.T, method, url, body string, fields ...string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range fields {
		name, value, _ := strings.Cut(field, ": ")
		r.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// redisContents reads every key of a Redis, whatever its type.
func redisContents(t *testing.T, address string) map[string]string {
	t.Helper()
	options, err := redis.ParseURL(address)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	held := map[string]string{}
	keys := client.Scan(t.Context(), 0, "*", 1000).Iterator()
	for keys.Next(t.Context()) {
		// DUMP knows every type; nil is one that is gone meanwhile.
		value, err := client.Dump(t.Context(), keys.Val()).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			t.Fatal(err)
		}
		text, _ := client.Get(t.Context(), keys.Val()).Result() // as it is, where DUMP might have compressed it
		held[keys.Val()] = value + text
	}
	if err := keys.Err(); err != nil {
		t.Fatal(err)
	}
	return held
}

// memcachedContents reads every key of a Memcached, found by its crawler.
func memcachedContents(t *testing.T, address string) map[string]string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(address, "memcached://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	in := bufio.NewReader(conn)
	line := func() string {
		text, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimRight(text, "\r\n")
	}
	var keys []string
	fmt.Fprint(conn, "lru_crawler metadump all\r\n")
	for text := line(); text != "END"; text = line() {
		if strings.HasPrefix(text, "BUSY") { // another test scans at the moment
			time.Sleep(100 * time.Millisecond)
			fmt.Fprint(conn, "lru_crawler metadump all\r\n")
			continue
		}
		name, ok := strings.CutPrefix(strings.Fields(text)[0], "key=")
		if !ok {
			t.Fatalf("the crawler said %q", text)
		}
		key, err := url.QueryUnescape(name)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	held := map[string]string{}
	for _, key := range keys {
		fmt.Fprintf(conn, "get %s\r\n", key)
		for text := line(); text != "END"; text = line() {
			var size int
			fields := strings.Fields(text)
			if _, err := fmt.Sscan(fields[len(fields)-1], &size); err != nil {
				t.Fatal(err)
			}
			value := make([]byte, size+2)
			if _, err := io.ReadFull(in, value); err != nil {
				t.Fatal(err)
			}
			held[key] = string(value[:size])
		}
		held[key] = cmp.Or(held[key], " ")
	}
	return held
}
