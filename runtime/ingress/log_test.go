package ingress

import (
	"net/http/httptest"
	"net/netip"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func observed() (*zap.Logger, *observer.ObservedLogs) {
	core, lines := observer.New(zapcore.DebugLevel)
	return zap.New(core), lines
}

func TestOneLinePerRequest(t *testing.T) {
	log, lines := observed()
	h := New(Config{Broker: newBroker(), Log: log})
	do(h, "GET", "/profiles/42?name=secret", "", "X-Request-Id: one")
	do(h, "GET", "/livez", "")
	do(h, "GET", "/orphans/1", "")
	levels := []zapcore.Level{zapcore.DebugLevel, zapcore.DebugLevel, zapcore.WarnLevel}
	if lines.Len() != len(levels) {
		t.Fatalf("%d lines, want %d", lines.Len(), len(levels))
	}
	for n, line := range lines.All() {
		if line.Level != levels[n] {
			t.Errorf("line %d is at %v, want %v", n, line.Level, levels[n])
		}
	}
	fields := lines.All()[0].ContextMap()
	for name, want := range map[string]any{"method": "GET", "path": "/profiles/42", "status": int64(200), "function": "get", "id": "one", "client": "192.0.2.1"} {
		if fields[name] != want {
			t.Errorf("%s is %v, want %v", name, fields[name], want)
		}
	}
}

func TestClientAddress(t *testing.T) {
	i := New(Config{Broker: newBroker(), TrustProxy: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	for _, c := range []struct{ peer, real, forwarded, want string }{
		{"203.0.113.9:1", "1.1.1.1", "2.2.2.2", "203.0.113.9"},
		{"10.0.0.1:1", "1.1.1.1", "2.2.2.2", "1.1.1.1"},
		{"10.0.0.1:1", "", "6.6.6.6, 2.2.2.2, 10.1.1.1", "2.2.2.2"},
		{"10.0.0.1:1", "", "rubbish", "10.0.0.1"},
		{"10.0.0.1:1", "", "", "10.0.0.1"},
		{"[::ffff:10.0.0.1]:1", "1.1.1.1", "", "1.1.1.1"},
		{"@", "1.1.1.1", "", "@"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.peer
		r.Header.Set("X-Real-Ip", c.real)
		r.Header.Set("X-Forwarded-For", c.forwarded)
		if got := i.clientOf(r); got != c.want {
			t.Errorf("%+v: client %q", c, got)
		}
	}
}
