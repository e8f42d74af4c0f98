// Package redisurl parses URLs of Redis: of a server, of a server behind sentinels,
// or of a cluster. Everything that stores something in Redis accepts the same URLs.
// The package does not connect, and sets no timeouts.
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

// Schemes has the schemes that Parse accepts.
var Schemes = []string{"redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"}

// Parse returns the options of a client for the Redis at rawURL:
//
//	redis://user:password@host:6379/0
//	redis+sentinel://a:26379,b,c?master_name=m
//	redis+cluster://a:6379,b,c
//
// With rediss instead of redis, connections use TLS. user:password is for the
// server, or for the sentinels. These query parameters have an effect: pool_size,
// skip_verify (of the certificate), and with sentinels master_name, db, username
// and password (for the server). The client applies the deadline of a ctx to its
// commands; other timeouts are left to the caller. Errors do not contain the
// password.
func Parse(rawURL string) (*redis.UniversalOptions, error) {
	scheme, rest, ok := strings.Cut(rawURL, "://")
	if !ok || !slices.Contains(Schemes, scheme) {
		return nil, fmt.Errorf("a Redis URL must begin with one of %s://", strings.Join(Schemes, "://, "))
	}
	base, mode, _ := strings.Cut(scheme, "+")
	plain, err := withAddresses(base, rest, mode)
	if err != nil {
		return nil, err
	}
	o := &redis.UniversalOptions{
		// Without it, go-redis applies only its own timeouts, not the deadline of a ctx.
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
			return nil, fmt.Errorf("%s URL: add ?master_name=, the name of the master in the configuration of the sentinels", scheme)
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

// withAddresses returns "user:password@a:1,b:2/0?x=y" as a URL that go-redis
// parses: with the first address as host, and the others as addr parameters.
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
	if err != nil { // err may contain the password
		return "", errors.New("the Redis URL is not valid: write redis://user:password@host:6379/0, with %XX for special characters in the password")
	}
	query := u.Query()
	for _, a := range addresses[1:] {
		query.Add("addr", a)
	}
	u.RawQuery = query.Encode()
	return u.String(), nil
}
