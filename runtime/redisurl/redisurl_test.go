package redisurl

import (
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		url       string
		addresses []string
		db        int
		tls       bool
		master    string
		cluster   bool
	}{
		{"redis://h:1/3", []string{"h:1"}, 3, false, "", false},
		{"rediss://h:1", []string{"h:1"}, 0, true, "", false},
		{"redis+sentinel://a:1,b:2/4?master_name=m", []string{"a:1", "b:2"}, 4, false, "m", false},
		{"rediss+cluster://a:1,b:2,c:3", []string{"a:1", "b:2", "c:3"}, 0, true, "", true},
	} {
		o, err := Parse(c.url)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if !slices.Equal(o.Addrs, c.addresses) || o.DB != c.db || (o.TLSConfig != nil) != c.tls || o.MasterName != c.master || o.IsClusterMode != c.cluster {
			t.Errorf("%s: got addresses %q, database %d, TLS %v, master %q, cluster %v", c.url, o.Addrs, o.DB, o.TLSConfig != nil, o.MasterName, o.IsClusterMode)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for url, want := range map[string]string{
		"":                                   "must begin with",
		"host:6379":                          "must begin with",
		"memcached://me:secret@h":            "must begin with",
		"redis://me:secret@a:1,b:2":          "redis+cluster://",
		"redis://me:se%zzcret@h":             "is not valid",
		"redis+sentinel://me:secret@a:1,b:2": "master_name",
		"redis+cluster://me:secret@a?x=y":    "x",
		"redis://me:secret@h:1/no-database":  "database",
	} {
		_, err := Parse(url)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want it to say %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error shows the password: %v", url, err)
		}
	}
}
