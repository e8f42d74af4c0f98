package server

import (
	"context"
	"slices"
	"sync"
)

// GetFromAll reads keys from the servers that have them, from all at the same
// time. serverOf returns the server of a key.
func GetFromAll(ctx context.Context, keys []string, values [][]byte, serverOf func(key string) (*Server, error)) error {
	type part struct {
		server  *Server
		keys    []string
		values  [][]byte
		indexes []int // in values
	}
	var parts []part
	for i, key := range keys {
		s, err := serverOf(key)
		if err != nil {
			return err
		}
		n := slices.IndexFunc(parts, func(p part) bool { return p.server == s })
		if n < 0 {
			n = len(parts)
			parts = append(parts, part{server: s})
		}
		p := &parts[n]
		p.keys, p.values, p.indexes = append(p.keys, key), append(p.values, nil), append(p.indexes, i)
	}
	if len(parts) == 0 {
		return nil
	}
	errs := make([]error, len(parts))
	var others sync.WaitGroup
	for n := range parts[1:] {
		others.Go(func() { errs[n+1] = parts[n+1].server.Get(ctx, parts[n+1].keys, parts[n+1].values) })
	}
	errs[0] = parts[0].server.Get(ctx, parts[0].keys, parts[0].values)
	others.Wait()
	for n, p := range parts {
		if errs[n] != nil {
			return errs[n]
		}
		for i, at := range p.indexes {
			values[at] = p.values[i]
		}
	}
	return nil
}
