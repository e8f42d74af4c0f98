// Package services opens what a process uses: a broker, and stores for cached
// results, sessions and handled events. A table for each of them says which
// function opens a URL, by the URL's scheme. To add a broker or a store, add its
// row; nothing else here depends on what it is.
package services

import (
	"cmp"
	"slices"
	"strings"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
)

// A table holds the functions that open one kind of service. Error messages list
// its schemes in its order.
type table[Open any] []row[Open]

type row[Open any] struct {
	open    Open
	schemes []string // of the URLs that open takes
}

// find returns the function that opens url, the value of variable.
func (t table[Open]) find(variable, url string) (open Open, err error) {
	scheme, _, _ := strings.Cut(url, "://")
	var choices []string
	for _, r := range t {
		if slices.Contains(r.schemes, scheme) {
			return r.open, nil
		}
		choices = append(choices, r.schemes...)
	}
	begin := strings.Join(choices, "://, ") + "://"
	return open, config.Unusable(config.Prefix+variable, url, "begin it with one of %s", strings.Replace(begin, none+"://", none, 1))
}

// none in place of a URL turns a service off.
const none = "none"

// Check reports a URL in c whose scheme no table has.
func Check(c *config.Config) error {
	return cmp.Or(
		brokers.check("BROKER_URL", c.BrokerURL),
		caches.check("CACHE_URL", c.CacheURL),
		inboxes.check("STATE_URL", c.StateURL),
		sessionStores.check("SESSION_URL", c.SessionURL),
	)
}

func (t table[Open]) check(variable, url string) error {
	if url == "" {
		return nil
	}
	_, err := t.find(variable, url)
	return err
}
