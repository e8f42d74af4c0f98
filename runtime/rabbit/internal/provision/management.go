package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
)

// survey is the content of a virtual host according to the management API.
type survey struct {
	exchanges map[string]existingExchange
	queues    map[string]existingQueue
	bindings  map[topology.Binding]bool // without those to the default exchange, which every queue has
}

type existingExchange struct {
	Name      string         `json:"name"`
	Kind      string         `json:"type"`
	Durable   bool           `json:"durable"`
	Arguments map[string]any `json:"arguments"`
}

func (x existingExchange) alternate() string {
	name, _ := x.Arguments[topology.ArgumentAlternate].(string)
	return name
}

type existingQueue struct {
	Name       string         `json:"name"`
	Durable    bool           `json:"durable"`
	AutoDelete bool           `json:"auto_delete"`
	Arguments  map[string]any `json:"arguments"`
}

type existingBinding struct {
	Source          string         `json:"source"`
	Destination     string         `json:"destination"`
	DestinationType string         `json:"destination_type"`
	Key             string         `json:"routing_key"`
	Arguments       map[string]any `json:"arguments"`
}

// takeSurvey reads the virtual host from the management API at the URL. Its errors
// do not contain the password of the URL.
func takeSurvey(ctx context.Context, address, vhost string) (*survey, error) {
	base, err := url.Parse(address)
	if err != nil || base.Host == "" {
		return nil, errors.New("the URL of the management API cannot be read: write http://user:password@host:15672")
	}
	s := &survey{exchanges: map[string]existingExchange{}, queues: map[string]existingQueue{}, bindings: map[topology.Binding]bool{}}
	var exchanges []existingExchange
	var queues []existingQueue
	var bindings []existingBinding
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for path, into := range map[string]any{
		"/api/exchanges/%s?columns=name,type,durable,arguments":                              &exchanges,
		"/api/queues/%s?columns=name,durable,auto_delete,arguments":                          &queues,
		"/api/bindings/%s?columns=source,destination,destination_type,routing_key,arguments": &bindings,
	} {
		if err := get(ctx, client, base, fmt.Sprintf(path, url.PathEscape(vhost)), into); err != nil {
			return nil, err
		}
	}
	for _, x := range exchanges {
		s.exchanges[x.Name] = x
	}
	for _, q := range queues {
		s.queues[q.Name] = q
	}
	for _, b := range bindings {
		if b.DestinationType == "queue" && b.Source != "" && len(b.Arguments) == 0 {
			s.bindings[topology.Binding{Queue: b.Destination, Key: b.Key, Exchange: b.Source}] = true
		}
	}
	return s, nil
}

// requestTimeout is how long one request to the management API may take.
const requestTimeout = 30 * time.Second

func get(ctx context.Context, client *http.Client, base *url.URL, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	u := *base
	u.User = nil
	where := u.String()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(where, "/")+path, nil)
	if err != nil {
		return fmt.Errorf("ask the management API at %s: %w", where, err)
	}
	if base.User != nil {
		password, _ := base.User.Password()
		request.SetBasicAuth(base.User.Username(), password)
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask the management API at %s: %w", where, err)
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("the management API at %s does not let user %q in (%s): check the password, and give the user the tag monitoring", where, base.User.Username(), response.Status)
	default:
		return fmt.Errorf("the management API at %s answered %s to GET %s", where, response.Status, path)
	}
	d := json.NewDecoder(response.Body)
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("the management API at %s gave an answer that cannot be read: %w", where, err)
	}
	return nil
}
