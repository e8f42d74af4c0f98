// Package redisurl reads the URLs that name a Redis: one server, the one that
// sentinels name, or a cluster. It knows neither what is kept there nor how
// patient a caller is.
package redisurl

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Schemes are what such a URL begins with.
var Schemes = []string{"redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"}

// Parse returns what a client for the Redis at rawURL is made with:
//
//	redis://user:password@host:6379/0          rediss:// with TLS
//	redis+sentinel://a:26379,b,c?master_name=m
//	redis+cluster://a:6379,b,c
//
// The client heeds the deadlines of a ctx; timeouts are left to the caller.
// Errors never show the password.
func Parse(rawURL string) (*redis.UniversalOptions, error) {
	scheme, rest, ok := strings.Cut(rawURL, "://")
	if !ok || !slices.Contains(Schemes, scheme) {
		return nil, fmt.Errorf("a Redis URL begins with one of %s://", strings.Join(Schemes, "://, "))
	}
	base, mode, _ := strings.Cut(scheme, "+")
	plain, err := withAddresses(base, rest, mode)
	if err != nil {
		return nil, err
	}
	o := &redis.UniversalOptions{
		// The client heeds a ctx's deadline only when told to; its own limits hold for the rest.
		ContextTimeoutEnabled:    true,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	switch mode {
	case "cluster":
		c, err := redis.ParseClusterURL(plain)
		if err != nil {
			return nil, fmt.Errorf("%s URL: %w", scheme, err)
		}
		o.Addrs, o.Username, o.Password, o.TLSConfig, o.PoolSize = c.Addrs, c.Username, c.Password, c.TLSConfig, c.PoolSize
		o.IsClusterMode = true
	case "sentinel":
		s, err := redis.ParseFailoverURL(plain)
		if err != nil {
			return nil, fmt.Errorf("%s URL: %w", scheme, err)
		}
		if s.MasterName == "" {
			return nil, fmt.Errorf("%s URL: add ?master_name=, the name that the sentinels know the master by", scheme)
		}
		o.Addrs, o.MasterName, o.DB, o.Username, o.Password = s.SentinelAddrs, s.MasterName, s.DB, s.Username, s.Password
		o.SentinelUsername, o.SentinelPassword, o.TLSConfig, o.PoolSize = s.SentinelUsername, s.SentinelPassword, s.TLSConfig, s.PoolSize
	default:
		s, err := redis.ParseURL(plain)
		if err != nil {
			return nil, fmt.Errorf("%s URL: %w", scheme, err)
		}
		o.Addrs, o.DB, o.Username, o.Password, o.TLSConfig, o.PoolSize = []string{s.Addr}, s.DB, s.Username, s.Password, s.TLSConfig, s.PoolSize
	}
	return o, nil
}

// withAddresses writes "user:password@a:1,b:2/0?x=y" the way the client reads
// it: the first address in its place, the others as parameters.
func withAddresses(scheme, rest, mode string) (string, error) {
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	authority, tail := rest[:end], rest[end:]
	at := strings.LastIndex(authority, "@") + 1
	addresses := strings.Split(authority[at:], ",")
	if len(addresses) > 1 && mode == "" {
		return "", errors.New("redis:// takes one address: write redis+cluster:// or redis+sentinel:// for several")
	}
	u, err := url.Parse(scheme + "://" + authority[:at] + addresses[0] + tail)
	if err != nil { // the error quotes the URL, and the URL may hold the password
		return "", errors.New("the Redis URL cannot be read: write redis://user:password@host:6379/0, with %XX for special characters in the password")
	}
	query := u.Query()
	for _, a := range addresses[1:] {
		query.Add("addr", a)
	}
	u.RawQuery = query.Encode()
	return u.String(), nil
}
