package config

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// DevDir is the folder in which 'rabbet dev' keeps its files.
func (c *Config) DevDir() string { return filepath.Join(c.Dir, "dev") }

// Socket is the unix socket on which 'rabbet dev' shares its broker.
func (c *Config) Socket() string { return filepath.Join(c.DevDir(), "broker.sock") }

// DevCache reports whether 'rabbet dev', where it runs, keeps cached results in
// its own memory.
func (c *Config) DevCache() bool {
	return c.CacheURL == "" || strings.HasPrefix(c.CacheURL, "memory://")
}

// RefuseOwnCache refuses a results cache in the memory of this process: no other
// process could invalidate it.
func (c *Config) RefuseOwnCache() error {
	if c.CacheURL != "" && c.DevCache() {
		return Unusable(Prefix+"CACHE_URL", c.CacheURL, "memory:// is inside 'rabbet dev' only: use redis:// or memcached://, the same for all ingresses and workers")
	}
	return nil
}

// BrokerVariable returns the variable that the broker URL comes from, and its
// value.
func (c *Config) BrokerVariable() (variable, value string) {
	if c.BrokerURLFile != "" {
		return Prefix + "BROKER_URL_FILE", c.BrokerURLFile
	}
	return Prefix + "BROKER_URL", c.BrokerURL
}

// ReadBrokerURL returns the broker URL that the file of BROKER_URL_FILE holds at
// present.
func (c *Config) ReadBrokerURL() (string, error) {
	content, err := os.ReadFile(c.BrokerURLFile)
	return strings.TrimSpace(string(content)), err
}

// DevKeys is what the routing keys of the functions begin with that 'rabbet dev'
// itself hosts for the workers that it starts.
const DevKeys = "rabbet.dev."

// OfDev reports whether 'rabbet dev' itself hosts the function.
func OfDev(d *contract.Descriptor) bool { return strings.HasPrefix(d.Keys[0], DevKeys) }
