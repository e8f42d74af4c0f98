package redisurl_test

import (
	"fmt"

	"github.com/rabbet-fn/rabbet/runtime/redisurl"
)

// One syntax names a server, a server behind sentinels, and a cluster.
func ExampleParse() {
	for _, url := range []string{
		"redis://user:password@redis.example.org:6379/2",
		"rediss+sentinel://a:26379,b:26379/?master_name=main",
		"redis+cluster://a:6379,b:6379",
		"redis://a:6379,b:6379",
	} {
		o, err := redisurl.Parse(url)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(o.Addrs, o.DB, o.TLSConfig != nil, o.MasterName, o.IsClusterMode)
	}
	// Output:
	// [redis.example.org:6379] 2 false  false
	// [a:26379 b:26379] 0 true main false
	// [a:6379 b:6379] 0 false  true
	// redis:// takes one address: write redis+cluster:// or redis+sentinel:// for several
}
